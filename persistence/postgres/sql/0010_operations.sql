-- Formats, retention and restoring.

alter table outbox add column format smallint not null default 1;
comment on column outbox.format is 'How order_ids and versions are to be read. 1: versions of orders, encoded from the tables. Whoever does not know a row''s format leaves it to a newer release.';

-- recover: the units of orders that the stream knows and a restored ledger did not. p_units above 0: free -> held; what is not free any more is owed, since it was
-- sold all the same. Below 0: held -> free, what is owed first. Arrays run in parallel; a SKU stands there once. The caller has closed all leases.
-- Answers the SKUs of which more or less is owed than before.
create function stock_recover(p_sku text[], p_units bigint[]) returns table (sku text, owed bigint)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_sku text;
    v_units bigint;
    v_shards integer;
    v_owed bigint;
    v_moved bigint;
begin
    for v_sku, v_units in select t.sku, t.units from unnest(p_sku, p_units) t(sku, units) where t.units <> 0 order by t.sku collate "C" loop
        insert into stock_sku (sku, total, shards) values (v_sku, 0, 4) on conflict do nothing;
        select k.shards, k.owed into v_shards, v_owed from stock_sku k where k.sku = v_sku for update;
        insert into stock_shard (sku, shard, free) select v_sku, g, 0 from generate_series(0, v_shards - 1) g on conflict do nothing;
        perform 1 from stock_shard s where s.sku = v_sku order by s.shard for no key update;
        if v_units > 0 then
            select least(v_units, sum(s.free)) into v_moved from stock_shard s where s.sku = v_sku;
            if v_moved > 0 then
                perform stock_draw(v_sku, v_moved);
            end if;
            v_owed := v_units - v_moved;
        else
            v_owed := -least(v_owed, -v_units);
            perform stock_return(0, array[v_sku], array[v_owed - v_units]);
        end if;
        if v_owed <> 0 then
            update stock_sku k set owed = k.owed + v_owed, version = k.version + 1 where k.sku = v_sku;
            return query select v_sku, v_owed;
        end if;
    end loop;
end $$;
