-- Many hands on one stock: a take that gives a whole order its units or nothing, and a bell for those who have lost the mirror's.

-- take, as in 0001, for several SKUs in one call; workers of the former version go on calling the former one. New is p_group: wants with the same number belong to
-- one order and are granted all or none, so that two orders that each lack what the other has never hold it against each other. Groups are decided when every SKU
-- of the call has been looked at in order, since the locks have to be taken in the order of SKUs. A want that shares its number with another one does not try the
-- home shard alone: what was drawn from it could not be given up again.
-- Answers also the shards as they stand: the home shard while there is plenty, all shards where all were locked.
create function stock_take(p_owner uuid, p_home integer, p_lease uuid[], p_sku text[], p_min bigint[], p_max bigint[], p_group integer[])
returns table (lease_id uuid, granted bigint, free_left bigint, outstanding bigint, shards integer[], frees bigint[], versions bigint[])
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_wants integer := cardinality(p_sku);
    v_granted bigint[] := array_fill(0::bigint, array[v_wants]);
    v_free bigint[] := array_fill(null::bigint, array[v_wants]);
    v_out bigint[] := array_fill(null::bigint, array[v_wants]);
    v_short integer[] := '{}';
    v_units bigint;
    v_shard integer;
    v_left bigint;
    v_version bigint;
    v_rows bigint;
    v_locked bigint;
begin
    perform 1 from worker w where w.owner = p_owner and w.state = 'alive' for no key update;
    if not found then
        raise exception 'owner % is not alive', p_owner using errcode = 'FG001';
    end if;

    for i in 1 .. v_wants loop
        select l.units into v_units from stock_lease l where l.lease_id = p_lease[i];
        if found then
            v_granted[i] := v_units;
            return query select p_lease[i], v_units, null::bigint, null::bigint, null::integer[], null::bigint[], null::bigint[];
            continue;
        end if;

        if cardinality(array_positions(p_group, p_group[i])) = 1 then
            v_units := null;
            begin
                update stock_shard s set free = s.free - least(p_max[i], s.free / 4), version = s.version + 1
                    from stock_sku k
                    where k.sku = p_sku[i] and s.sku = k.sku and s.shard = p_home % k.shards and least(p_max[i], s.free / 4) >= greatest(p_min[i], 16)
                    returning old.free - new.free, s.shard, s.free, s.version into v_units, v_shard, v_left, v_version;
                if v_units is null then
                    raise exception 'the home shard is low' using errcode = 'FG002';
                end if;
            exception when sqlstate 'FG002' then
                null;
            end;
            if v_units is not null then
                insert into stock_lease (lease_id, owner, sku, units) values (p_lease[i], p_owner, p_sku[i], v_units);
                v_granted[i] := v_units;
                return query select p_lease[i], v_units, null::bigint, null::bigint, array[v_shard], array[v_left], array[v_version];
                continue;
            end if;
            if p_min[i] = 0 and (select coalesce(sum(s.free), 0) / 4 < 16 from stock_shard s where s.sku = p_sku[i]) then
                return query select p_lease[i], 0::bigint, null::bigint, null::bigint, null::integer[], null::bigint[], null::bigint[];
                continue;
            end if;
        end if;

        -- Again when a reshard has committed shards that the first pass could not see; the rows held now keep the next reshard out.
        loop
            perform 1 from stock_shard s where s.sku = p_sku[i] order by s.shard for no key update;
            get diagnostics v_locked = row_count;
            select count(*), coalesce(sum(s.free), 0) into v_rows, v_left from stock_shard s where s.sku = p_sku[i];
            exit when v_rows = v_locked;
        end loop;
        select coalesce(sum(l.units - l.used), 0) into v_units from stock_lease l where l.sku = p_sku[i] and l.state <> 'closed';
        v_out[i] := v_units;
        v_free[i] := v_left;
        v_units := least(p_max[i], v_left / 4);
        if v_units < greatest(p_min[i], 16) then
            v_units := case when v_left >= p_min[i] then p_min[i] else 0 end;
        end if;
        v_granted[i] := v_units;
        if v_units < p_min[i] then
            v_short := v_short || p_group[i];
        end if;
    end loop;

    for i in 1 .. v_wants loop
        continue when v_free[i] is null;
        v_units := case when p_group[i] = any(v_short) then 0 else v_granted[i] end;
        if v_units > 0 then
            perform stock_draw(p_sku[i], v_units);
            insert into stock_lease (lease_id, owner, sku, units) values (p_lease[i], p_owner, p_sku[i], v_units);
        end if;
        return query
            select p_lease[i], v_units,
                   case when v_units > p_min[i] or p_min[i] = 0 then null else v_free[i] - v_units end,
                   case when v_units > p_min[i] or p_min[i] = 0 then null else v_out[i] + v_units end,
                   array_agg(s.shard order by s.shard), array_agg(s.free order by s.shard), array_agg(s.version order by s.shard)
            from stock_shard s where s.sku = p_sku[i];
    end loop;
end $$;

-- The bell without the mirror: who waits for units that are in somebody's hands names the SKUs here, and every worker, which follows the topic, gives back what it
-- has not promised. Rows are of no use for longer than it takes a worker to follow.
insert into revision (topic) values ('bell');
create table stock_wanted (
    sku text collate "C" primary key,
    revision bigint not null,
    at timestamptz not null default clock_timestamp()
);
create index stock_wanted_revision on stock_wanted (revision);

create function stock_ring(p_sku text[]) returns void
language plpgsql as $$
declare
    v_revision bigint;
begin
    update revision set value = value + 1 where topic = 'bell' returning value into v_revision;
    insert into stock_wanted (sku, revision) select s, v_revision from unnest(p_sku) s order by 1
        on conflict (sku) do update set revision = excluded.revision, at = clock_timestamp();
end $$;
