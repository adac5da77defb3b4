-- commit_whole: the commit of a batch all of whose orders live, for a caller who has sent their rows behind it already, unseen. It claims, checks and counts what
-- commit_batch does, and says nothing; when an order would not live it raises, and the statements behind it are skipped, COMMIT among them: FG001 for a lease or a
-- limit, 23505 on idempotency_key for a key that is known. The caller comes again step by step then, with the rows of the living alone.
--
-- The demand (d_lease, d_units) names a lease once, in the order of the leases; limits are as in commit_batch. Knowing that nobody is refused saves what
-- commit_batch spends on telling the orders apart, and the look before each claim of a key.
create function commit_whole(p_batch uuid, p_key uuid[], p_order uuid[], p_fingerprint uuid[], d_lease uuid[], d_units bigint[],
                             l_sku text[], l_customer text[], l_units bigint[], l_max bigint[])
returns void
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_done bigint;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'commit_whole needs READ COMMITTED: its statements have to see what they waited for';
    end if;
    insert into batch (batch_id, outcome) values (p_batch, 'committed');
    insert into idempotency_key (key_hash, order_id, fingerprint) select t.k, t.o, t.f from unnest(p_key, p_order, p_fingerprint) t(k, o, f);

    if cardinality(l_sku) > 0 then
        insert into buyer_taken (sku, customer, taken) select t.sku, t.customer, 0 from unnest(l_sku, l_customer) t(sku, customer) on conflict do nothing;
        select count(*) into v_done
            from unnest(l_sku, l_customer, l_units, l_max) t(sku, customer, units, units_max)
            cross join lateral (select x.taken from buyer_taken x where x.sku = t.sku and x.customer = t.customer for no key update) b
            where b.taken + t.units <= t.units_max;
        if v_done <> cardinality(l_sku) then
            raise exception using errcode = 'FG001', message = 'an order of the batch is refused: a limit';
        end if;
        insert into buyer_taken as b (sku, customer, taken)
            select t.sku, t.customer, t.units from unnest(l_sku, l_customer, l_units) t(sku, customer, units)
            on conflict (sku, customer) do update set taken = b.taken + excluded.taken;
    end if;

    -- A pass of its own: the UPDATE by itself walks the leases in the order of the demand or not, as the planner likes, and batches then deadlock.
    if cardinality(d_lease) > 1 then
        perform 1 from stock_lease l where l.lease_id = any(d_lease) order by l.lease_id for no key update;
    end if;
    update stock_lease l set used = l.used + d.units, state = case when l.used + d.units = l.units then 'closed' else 'active' end
        from unnest(d_lease, d_units) d(lease, units)
        where l.lease_id = d.lease and l.lease_id = any(d_lease) and case l.state when 'active' then l.used + d.units <= l.units else false end;
    get diagnostics v_done = row_count;
    if v_done <> cardinality(d_lease) then
        raise exception using errcode = 'FG001', message = 'an order of the batch is refused: a lease';
    end if;

    insert into outbox (batch_id, order_ids, versions) values (p_batch, p_order, array_fill(1, array[cardinality(p_order)]));
end $$;
