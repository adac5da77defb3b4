-- commit_batch: the decision of one batch, in one round trip. A function, because each of its statements has to see what the one before it waited for, and a
-- refused order has to leave nothing behind. The caller then copies the rows of the living orders and commits.
--
-- Orders are named by their position, from 1, in the arrays p_key, p_order, p_fingerprint, which are sorted by key. Demand (d_order, d_lease, d_units) may name an
-- order and a lease several times. Answers the exceptions only; an order without a row is new:
--   duplicate  the key belongs to stored_order; stored_fingerprint tells whether the body was the same
--   fenced     a lease of the order is closed or has too few units left, or its key has just been forgotten; nothing of the order remains
-- A batch id that exists raises 23505: the batch was fenced, or is being replayed.
--
-- Plans are made once per connection, often while the tables are empty. So that they walk the primary keys at any size, each access names its keys with = any(…),
-- sequential scans are off, and the check of `state` stands inside a CASE, from which no partial index can be inferred.
create function commit_batch(p_batch uuid, p_key uuid[], p_order uuid[], p_fingerprint uuid[], d_order integer[], d_lease uuid[], d_units bigint[])
returns table (at integer, verdict text, stored_order uuid, stored_fingerprint uuid)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_dead boolean[];
    v_fenced boolean[] := array_fill(false, array[cardinality(p_order)]);
    v_bad uuid[];
    v_meant bigint;
    v_moved bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'commit_batch needs READ COMMITTED: its statements have to see what they waited for';
    end if;
    insert into batch (batch_id, outcome) values (p_batch, 'committed');

    with claimed as (
        insert into idempotency_key (key_hash, order_id, fingerprint)
            select t.k, t.o, t.f from unnest(p_key, p_order, p_fingerprint) t(k, o, f)
            on conflict do nothing
            returning order_id)
        select array_agg(c.order_id is null order by t.n) into v_dead
            from unnest(p_order) with ordinality t(order_id, n) left join claimed c on c.order_id = t.order_id;

    perform 1 from stock_lease l where l.lease_id = any(d_lease) order by l.lease_id for no key update;
    select array_agg(d.lease) into v_bad
        from (select t.lease, sum(t.units)::bigint units from unnest(d_order, d_lease, d_units) t(n, lease, units) where not v_dead[t.n] group by t.lease) d
        left join stock_lease l on l.lease_id = d.lease and l.lease_id = any(d_lease)
        where l.lease_id is null or l.state <> 'active' or l.used + d.units > l.units;
    if v_bad is not null then
        for i in 1 .. cardinality(d_order) loop
            if d_lease[i] = any(v_bad) and not v_dead[d_order[i]] then
                v_fenced[d_order[i]] := true;
            end if;
        end loop;
        for i in 1 .. cardinality(p_order) loop
            v_dead[i] := v_dead[i] or v_fenced[i];
        end loop;
        delete from idempotency_key k using unnest(p_key, v_fenced) t(k, fenced) where t.fenced and k.key_hash = t.k and k.key_hash = any(p_key);
    end if;

    select count(distinct t.lease) into v_meant from unnest(d_order, d_lease) t(n, lease) where not v_dead[t.n];
    update stock_lease l set used = l.used + d.units, state = case when l.used + d.units = l.units then 'closed' else 'active' end
        from (select t.lease, sum(t.units)::bigint units from unnest(d_order, d_lease, d_units) t(n, lease, units) where not v_dead[t.n] group by t.lease) d
        where l.lease_id = d.lease and l.lease_id = any(d_lease) and case l.state when 'active' then l.used + d.units <= l.units else false end;
    get diagnostics v_moved = row_count;
    if v_moved <> v_meant then
        raise exception 'commit of batch % moved units of % leases, not of %', p_batch, v_moved, v_meant;
    end if;

    insert into outbox (batch_id, order_ids, versions)
        select p_batch, array_agg(t.o), array_agg(1) from unnest(p_order, v_dead) t(o, dead) where not t.dead having count(*) > 0;

    if true = any(v_dead) then
        return query
            select t.n::integer, case when k.order_id is null then 'fenced' else 'duplicate' end, k.order_id, k.fingerprint
            from unnest(p_key, v_dead, v_fenced) with ordinality t(k, dead, fenced, n)
            left join idempotency_key k on k.key_hash = t.k and k.key_hash = any(p_key) and not t.fenced
            where t.dead;
    end if;
end $$;
