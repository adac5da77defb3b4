-- Limits per buyer, and orders that are cancelled.
-- Locks are taken in one order everywhere: orders by id, keys by hash, limits by (stock key, customer), leases by id, shards by (SKU, shard).

-- The key under which units are counted: the SKU, or for an order of a sale the sale and the SKU, whose separator stands in neither.
create function stock_key(p_sale text, p_sku text) returns text
language sql immutable parallel safe as $$
    select case when p_sale is null then p_sku else p_sale || chr(31) || p_sku end
$$;

alter table product add column limit_units bigint check (limit_units >= 1);
comment on column product.limit_units is 'Units of the SKU that one customer may hold in live orders; NULL: no limit of its own.';

alter table order_lines add column limited boolean not null default false;
comment on column order_lines.limited is 'Whether the line''s units count in buyer_taken.';

create table buyer_taken (
    sku text collate "C" not null,
    customer text collate "C" not null,
    taken bigint not null check (taken >= 0),
    primary key (sku, customer)
) with (fillfactor = 50);
comment on table buyer_taken is 'Units of limited lines that a customer holds in live orders, by stock key. A row is raised and lowered with the units, and never removed.';

-- commit_batch, as in 0001, for orders with limits; workers of the former version go on calling the former one. New are the limits (l_order, l_sku, l_customer,
-- l_units, l_max): the order at this position wants so many units of the stock key, of which its customer may hold l_max. They are sorted by (l_sku, l_customer),
-- and a batch names such a pair once. New among the exceptions:
--   limit      the customer would hold more than he may; nothing of the order remains. over_sku and over_taken tell of which stock keys, and what he holds of each
-- A known key is a duplicate whatever the limits say, since only the limits of claimed keys are looked at.
--
-- A join of buyer_taken could be planned as a full walk while the table is empty. The LATERAL query with a row lock stays a nested loop whose inside knows the whole
-- primary key, and walks it in the order of the arrays; an upsert finds its rows by the index it names.
create function commit_batch(p_batch uuid, p_key uuid[], p_order uuid[], p_fingerprint uuid[], d_order integer[], d_lease uuid[], d_units bigint[],
                             l_order integer[], l_sku text[], l_customer text[], l_units bigint[], l_max bigint[])
returns table (at integer, verdict text, stored_order uuid, stored_fingerprint uuid, over_sku text[], over_taken bigint[])
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_dead boolean[];
    v_refused boolean[] := array_fill(false, array[cardinality(p_order)]);
    v_at integer;
    v_over integer[];
    v_over_sku text[];
    v_over_taken bigint[];
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

    if cardinality(l_order) > 0 then
        insert into buyer_taken (sku, customer, taken)
            select t.sku, t.customer, 0 from unnest(l_order, l_sku, l_customer) t(n, sku, customer) where not v_dead[t.n]
            on conflict do nothing;
        select count(*), array_agg(t.n) filter (where b.taken + t.units > t.units_max), array_agg(t.sku) filter (where b.taken + t.units > t.units_max),
               array_agg(b.taken) filter (where b.taken + t.units > t.units_max)
            into v_moved, v_over, v_over_sku, v_over_taken
            from unnest(l_order, l_sku, l_customer, l_units, l_max) t(n, sku, customer, units, units_max)
            cross join lateral (select x.taken from buyer_taken x where x.sku = t.sku and x.customer = t.customer for no key update) b
            where not v_dead[t.n];
        select count(*) into v_meant from unnest(l_order) t(n) where not v_dead[t.n];
        if v_moved <> v_meant then
            raise exception 'commit of batch % locked % limits, not %', p_batch, v_moved, v_meant;
        end if;
        foreach v_at in array coalesce(v_over, '{}') loop
            v_refused[v_at] := true;
            v_dead[v_at] := true;
        end loop;
    end if;

    perform 1 from stock_lease l where l.lease_id = any(d_lease) order by l.lease_id for no key update;
    select array_agg(d.lease) into v_bad
        from (select t.lease, sum(t.units)::bigint units from unnest(d_order, d_lease, d_units) t(n, lease, units) where not v_dead[t.n] group by t.lease) d
        left join stock_lease l on l.lease_id = d.lease and l.lease_id = any(d_lease)
        where l.lease_id is null or l.state <> 'active' or l.used + d.units > l.units;
    if v_bad is not null then
        for i in 1 .. cardinality(d_order) loop
            if d_lease[i] = any(v_bad) and not v_dead[d_order[i]] then
                v_refused[d_order[i]] := true;
            end if;
        end loop;
        for i in 1 .. cardinality(p_order) loop
            v_dead[i] := v_dead[i] or v_refused[i];
        end loop;
    end if;
    if true = any(v_refused) then
        delete from idempotency_key k using unnest(p_key, v_refused) t(k, refused) where t.refused and k.key_hash = t.k and k.key_hash = any(p_key);
    end if;

    select count(distinct t.lease) into v_meant from unnest(d_order, d_lease) t(n, lease) where not v_dead[t.n];
    update stock_lease l set used = l.used + d.units, state = case when l.used + d.units = l.units then 'closed' else 'active' end
        from (select t.lease, sum(t.units)::bigint units from unnest(d_order, d_lease, d_units) t(n, lease, units) where not v_dead[t.n] group by t.lease) d
        where l.lease_id = d.lease and l.lease_id = any(d_lease) and case l.state when 'active' then l.used + d.units <= l.units else false end;
    get diagnostics v_moved = row_count;
    if v_moved <> v_meant then
        raise exception 'commit of batch % moved units of % leases, not of %', p_batch, v_moved, v_meant;
    end if;
    if cardinality(l_order) > 0 then
        insert into buyer_taken as b (sku, customer, taken)
            select t.sku, t.customer, t.units from unnest(l_order, l_sku, l_customer, l_units) t(n, sku, customer, units) where not v_dead[t.n]
            on conflict (sku, customer) do update set taken = b.taken + excluded.taken;
    end if;

    insert into outbox (batch_id, order_ids, versions)
        select p_batch, array_agg(t.o), array_agg(1) from unnest(p_order, v_dead) t(o, dead) where not t.dead having count(*) > 0;

    if true = any(v_dead) then
        return query
            select t.n::integer, case when t.n = any(v_over) then 'limit' when k.order_id is null then 'fenced' else 'duplicate' end, k.order_id, k.fingerprint,
                   (select array_agg(o.sku) from unnest(v_over, v_over_sku) o(n, sku) where o.n = t.n),
                   (select array_agg(o.taken) from unnest(v_over, v_over_taken) o(n, taken) where o.n = t.n)
            from unnest(p_key, v_dead, v_refused) with ordinality t(k, dead, refused, n)
            left join idempotency_key k on k.key_hash = t.k and k.key_hash = any(p_key) and not t.refused
            where t.dead;
    end if;
end $$;

-- cancel: an order that waits for its payment or is paid, and nobody prepares yet, gives back its units and what its buyer has taken of his limits. One statement.
-- Only version p_version is cancelled, so that a call that is repeated moves units once. With p_client only an order of that client exists.
-- outcome: cancelled (the order has version p_version + 1 now), not_found, version_mismatch, not_cancellable (because of its status).
create function order_cancel(p_order uuid, p_version integer, p_client integer, p_home integer, p_actor text, p_reason text, p_traceparent text, p_batch uuid)
returns table (outcome text, status text, skus text[])
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_order record;
    v_line record;
    v_skus text[];
    v_units bigint[];
begin
    select o.client_id, o.customer_id, o.sale_id, o.status, o.version into v_order from orders o where o.order_id = p_order for no key update;
    if not found or p_client <> v_order.client_id then
        return query select 'not_found', null::text, null::text[];
        return;
    end if;
    if v_order.version <> p_version or v_order.status not in ('pending_payment', 'paid') then
        return query select case when v_order.version <> p_version then 'version_mismatch' else 'not_cancellable' end, v_order.status, null::text[];
        return;
    end if;

    update orders o set status = 'cancelled', version = p_version + 1 where o.order_id = p_order;
    insert into order_history (order_id, version, at, event, status, previous_status, actor, reason, changed, traceparent)
        values (p_order, p_version + 1, date_trunc('milliseconds', clock_timestamp()), 'cancelled', 'cancelled', v_order.status, p_actor, p_reason, '{status}',
                p_traceparent);

    for v_line in
        select stock_key(v_order.sale_id, l.sku) sku, sum(l.quantity)::bigint units from order_lines l where l.order_id = p_order and l.limited
            group by l.sku order by l.sku
    loop
        update buyer_taken b set taken = b.taken - v_line.units where b.sku = v_line.sku and b.customer = v_order.customer_id;
        if not found then
            raise exception 'nothing is known of what % units of % count against', v_line.units, v_line.sku;
        end if;
    end loop;
    select array_agg(t.sku), array_agg(t.units) into v_skus, v_units
        from (select stock_key(v_order.sale_id, l.sku) sku, sum(l.quantity)::bigint units from order_lines l where l.order_id = p_order and l.stocked
              group by l.sku) t;
    if v_skus is not null then
        perform stock_return(p_home, v_skus, v_units);
    end if;

    insert into batch (batch_id, outcome) values (p_batch, 'committed');
    insert into outbox (batch_id, order_ids, versions) values (p_batch, array[p_order], array[p_version + 1]);
    return query select 'cancelled', 'cancelled', coalesce(v_skus, '{}');
end $$;
