-- The statements that move units. Each is one autocommit call. Locks are taken in one order everywhere: the SKU's row, leases by id, shards by (SKU, shard).
-- Each change of a shard raises its version. A call that would move units and touches fewer rows than it meant to raises.
-- Error codes of ours: FG001 the owner is not alive; FG002 stays inside stock_take.
-- Sequential scans are off and leases are named with = any(…), so that plans made on an empty table stay right when it has grown.

-- take: free -> lease, for several SKUs in one call. Arrays run in parallel, sorted by SKU. p_min is what the oldest waiting order needs, p_max what would be
-- convenient. While the home shard has plenty, one row is touched and up to p_max granted; else all shards are locked in order: while they have plenty together, up
-- to p_max is granted, and in the tail exactly p_min or nothing. Answers per SKU: units granted; and, read under the shard locks in the tail, units left free and
-- units unsold in active leases (NULL while plenty). With p_min 0 it is a refill ahead of need and takes nothing in the tail.
-- Asked again with the same lease id, it answers what was granted.
create function stock_take(p_owner uuid, p_home integer, p_lease uuid[], p_sku text[], p_min bigint[], p_max bigint[])
returns table (lease_id uuid, granted bigint, free_left bigint, outstanding bigint)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_granted bigint;
    v_free bigint;
    v_out bigint;
    v_rows bigint;
    v_locked bigint;
begin
    -- Not FOR SHARE: a take asked again while the first one still runs has to wait for its lease, or both would insert it.
    perform 1 from worker w where w.owner = p_owner and w.state = 'alive' for no key update;
    if not found then
        raise exception 'owner % is not alive', p_owner using errcode = 'FG001';
    end if;
    for i in 1 .. cardinality(p_sku) loop
        select l.units into v_granted from stock_lease l where l.lease_id = p_lease[i];
        if found then
            return query select p_lease[i], v_granted, null::bigint, null::bigint;
            continue;
        end if;

        -- An UPDATE that waited and then finds too little keeps its lock on the row. The block gives it up: whoever holds the home shard and then locks all
        -- shards from the first on deadlocks with those who hold the first ones.
        begin
            update stock_shard s set free = s.free - least(p_max[i], s.free / 4), version = s.version + 1
                from stock_sku k
                where k.sku = p_sku[i] and s.sku = k.sku and s.shard = p_home % k.shards and least(p_max[i], s.free / 4) >= greatest(p_min[i], 16)
                returning old.free - new.free into v_granted;
            if v_granted is null then
                raise exception 'the home shard is low' using errcode = 'FG002';
            end if;
        exception when sqlstate 'FG002' then
            null;
        end;
        if v_granted is not null then
            insert into stock_lease (lease_id, owner, sku, units) values (p_lease[i], p_owner, p_sku[i], v_granted);
            return query select p_lease[i], v_granted, null::bigint, null::bigint;
            continue;
        end if;

        if p_min[i] = 0 and (select coalesce(sum(s.free), 0) / 4 < 16 from stock_shard s where s.sku = p_sku[i]) then
            return query select p_lease[i], 0::bigint, null::bigint, null::bigint;
            continue;
        end if;
        -- Again when a reshard has committed shards that the first pass could not see; the rows held now keep the next reshard out.
        loop
            perform 1 from stock_shard s where s.sku = p_sku[i] order by s.shard for no key update;
            get diagnostics v_locked = row_count;
            select count(*), coalesce(sum(s.free), 0) into v_rows, v_free from stock_shard s where s.sku = p_sku[i];
            exit when v_rows = v_locked;
        end loop;
        select coalesce(sum(l.units - l.used), 0) into v_out from stock_lease l where l.sku = p_sku[i] and l.state <> 'closed';
        v_granted := least(p_max[i], v_free / 4);
        if v_granted < greatest(p_min[i], 16) then
            v_granted := case when v_free >= p_min[i] then p_min[i] else 0 end;
        end if;
        if v_granted > 0 then
            perform stock_draw(p_sku[i], v_granted);
            insert into stock_lease (lease_id, owner, sku, units) values (p_lease[i], p_owner, p_sku[i], v_granted);
        end if;
        if v_granted > p_min[i] or p_min[i] = 0 then
            return query select p_lease[i], v_granted, null::bigint, null::bigint;
        else
            return query select p_lease[i], v_granted, v_free - v_granted, v_out + v_granted;
        end if;
    end loop;
end $$;

-- Draws p_units from the shards, the first ones first; the rows are locked by the caller, who has seen that there are enough.
create function stock_draw(p_sku text, p_units bigint) returns void
language plpgsql as $$
declare
    v_moved bigint;
begin
    with taken as (
        update stock_shard s set free = s.free - t.units, version = s.version + 1
            from (select x.shard, least(x.free, greatest(0, p_units - (x.running - x.free)))::bigint units
                  from (select y.shard, y.free, sum(y.free) over (order by y.shard) running from stock_shard y where y.sku = p_sku) x) t
            where s.sku = p_sku and s.shard = t.shard and t.units > 0
            returning old.free - new.free units)
        select sum(t.units) into v_moved from taken t;
    if v_moved is distinct from p_units then
        raise exception 'take of % moved % of % units', p_sku, v_moved, p_units;
    end if;
end $$;

-- Units that come back go to the home shard of each SKU. Arrays run in parallel; a SKU may stand several times.
create function stock_return(p_home integer, p_sku text[], p_units bigint[]) returns void
language plpgsql as $$
declare
    v_sku text;
    v_units bigint;
begin
    for v_sku, v_units in
        select t.sku, sum(t.units) from unnest(p_sku, p_units) t(sku, units) group by t.sku having sum(t.units) > 0 order by t.sku collate "C"
    loop
        update stock_shard s set free = s.free + v_units, version = s.version + 1
            from stock_sku k where k.sku = v_sku and s.sku = k.sku and s.shard = p_home % k.shards;
        if not found then
            raise exception 'no shard takes % units of % back', v_units, v_sku;
        end if;
    end loop;
end $$;

-- give: unsold units of active leases -> free. p_before names the units that the caller believes each lease has, so a give asked twice moves units once.
-- Answers the leases as they stand afterwards; a give has happened where units = p_before - p_units.
create function stock_give(p_home integer, p_lease uuid[], p_before bigint[], p_units bigint[])
returns table (lease_id uuid, units bigint, used bigint, state text)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_sku text[];
    v_given bigint[];
begin
    perform 1 from stock_lease l where l.lease_id = any(p_lease) order by l.lease_id for no key update;
    with given as (
        update stock_lease l set units = l.units - t.units, state = case when l.units - t.units = l.used then 'closed' else 'active' end
            from unnest(p_lease, p_before, p_units) t(lease_id, before, units)
            where l.lease_id = t.lease_id and l.lease_id = any(p_lease) and t.units > 0
                and case l.state when 'active' then l.units = t.before and l.units - t.units >= l.used else false end
            returning l.sku, t.units)
        select array_agg(g.sku), array_agg(g.units) into v_sku, v_given from given g;
    if v_sku is not null then
        perform stock_return(p_home, v_sku, v_given);
    end if;
    return query select l.lease_id, l.units, l.used, l.state from stock_lease l where l.lease_id = any(p_lease);
end $$;

-- close: all that is unsold in the leases of an owner (or in some of them) -> free. What goes back is computed by the statement that closes, from the row
-- itself. Answers the number of units that went back.
create function stock_close(p_home integer, p_owner uuid, p_lease uuid[] default null) returns bigint
language plpgsql set enable_seqscan = off as $$
declare
    v_sku text[];
    v_units bigint[];
begin
    perform 1 from stock_lease l where l.owner = p_owner and l.state = 'active' and (p_lease is null or l.lease_id = any(p_lease))
        order by l.lease_id for no key update;
    with closed as (
        update stock_lease l set units = l.used, state = 'closed'
            where l.owner = p_owner and l.state = 'active' and (p_lease is null or l.lease_id = any(p_lease))
            returning old.sku sku, old.units - old.used units)
        select array_agg(c.sku), array_agg(c.units) into v_sku, v_units from closed c;
    if v_sku is null then
        return 0;
    end if;
    perform stock_return(p_home, v_sku, v_units);
    return (select sum(u) from unnest(v_units) u);
end $$;

-- set: the merchant's total. More units go to the shards evenly, after what is owed; fewer are taken from the free ones, or nothing happens.
-- outcome: set, below_held (units are held or in somebody's hands), version_mismatch.
create function stock_set(p_sku text, p_total bigint, p_shards integer, p_actor text, p_reason text, p_if_version bigint)
returns table (outcome text, total bigint, version bigint)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_sku stock_sku;
    v_delta bigint;
    v_settled bigint;
    v_free bigint;
begin
    if p_if_version is null or p_if_version = 0 then
        insert into stock_sku (sku, total, shards, version) values (p_sku, 0, p_shards, 0) on conflict (sku) do nothing;
    end if;
    select * into v_sku from stock_sku k where k.sku = p_sku for update;
    if not found then
        return query select 'version_mismatch', 0::bigint, 0::bigint;
        return;
    end if;
    if p_if_version is not null and p_if_version <> v_sku.version then
        return query select 'version_mismatch', v_sku.total, v_sku.version;
        return;
    end if;
    insert into stock_shard (sku, shard, free) select p_sku, g, 0 from generate_series(0, v_sku.shards - 1) g on conflict do nothing;
    perform 1 from stock_shard s where s.sku = p_sku order by s.shard for no key update;
    v_delta := p_total - v_sku.total;
    v_settled := least(greatest(v_delta, 0), v_sku.owed);
    select sum(s.free) into v_free from stock_shard s where s.sku = p_sku;
    if v_free + v_delta < 0 then
        return query select 'below_held', v_sku.total, v_sku.version;
        return;
    end if;
    update stock_sku k set total = p_total, owed = k.owed - v_settled, version = k.version + 1 where k.sku = p_sku;
    perform stock_spread(p_sku, v_sku.shards, v_free + v_delta - v_settled);
    if v_delta <> 0 then
        insert into stock_movement (sku, delta, total, actor, reason) values (p_sku, v_delta, p_total, p_actor, p_reason);
    end if;
    return query select 'set', p_total, v_sku.version + 1;
end $$;

-- Lays p_free units evenly over the first p_shards shards; the rows are locked by the caller. Rows are never deleted: a take in the tail locks them all.
create function stock_spread(p_sku text, p_shards integer, p_free bigint) returns void
language sql as $$
    update stock_shard s
        set free = case when s.shard < p_shards then p_free / p_shards + (case when s.shard < p_free % p_shards then 1 else 0 end) else 0 end,
            version = s.version + 1
        where s.sku = p_sku;
$$;

-- reshard: free -> free. Leases belong to no shard, so nothing else changes.
create function stock_reshard(p_sku text, p_shards integer) returns boolean
language plpgsql set enable_seqscan = off as $$
declare
    v_free bigint;
begin
    update stock_sku k set shards = p_shards, version = k.version + 1 where k.sku = p_sku;
    if not found then
        return false;
    end if;
    insert into stock_shard (sku, shard, free) select p_sku, g, 0 from generate_series(0, p_shards - 1) g on conflict do nothing;
    perform 1 from stock_shard s where s.sku = p_sku order by s.shard for no key update;
    select sum(s.free) into v_free from stock_shard s where s.sku = p_sku;
    perform stock_spread(p_sku, p_shards, v_free);
    return true;
end $$;
