-- Levels of stock, their events, and where stock pinches. A SKU's level is in_stock, low (at most so many units are unsold) or sold_out (none is); what counts is
-- free units and unsold units in active leases together. A SKU here is a stock key: the units of a sale are a stock of their own.
--
-- Which SKUs have to be looked at stands in stock_watch, so that a hundred thousand idle ones cost nothing, nor does one of which there is plenty. A SKU that is not
-- on watch has the level that was told, and either no active leases, from which units are sold without a word here, or more free units than make it low. That rests
-- on one rule: whoever changes the free units of a shard, and so whoever makes a lease, holds a share of the SKU's row in stock_watch until the end of the
-- transaction, unless he takes some and leaves more than 1,000. Who takes the row away has locked it alone and looked afterwards: no such transaction is under way
-- then, and what earlier ones did is seen. Where more than 1,000 units are called low, SKUs with active leases are put on watch at each look besides; falling to low
-- may then be told with a later move. Selling out never is.

create table stock_watch (
    sku text collate "C" primary key
);
create table stock_level (
    sku text collate "C" primary key,
    level text not null check (level in ('in_stock', 'low', 'sold_out')),
    version bigint not null,
    at timestamptz not null default clock_timestamp()
) with (fillfactor = 70);
comment on table stock_level is 'A SKU without a row is in stock. The version counts the SKU''s events.';
create table stock_event (
    sku text collate "C" not null,
    version bigint not null,
    event text not null check (event in ('sold_out', 'back_in_stock', 'low')),
    level text not null,
    previous text not null,
    available bigint not null,
    at timestamptz not null,
    primary key (sku, version)
);
comment on table stock_event is 'Changes of level that the stream has not acknowledged.';

alter table worker add column pinch jsonb, add column pinch_s double precision;
comment on column worker.pinch is 'SKU -> [refills, orders refused for want of stock] during the last pinch_s seconds, and orders parked now.';

-- Not called while there is plenty. In the tail a take that finds the SKU on watch shares its row with other takes and with those who decide levels; only the first
-- change inserts.
create function stock_touched() returns trigger
language plpgsql as $$
begin
    loop
        perform 1 from stock_watch w where w.sku = new.sku for key share;
        exit when found;
        insert into stock_watch (sku) values (new.sku) on conflict do nothing;
        exit when found;
    end loop;
    return null;
end $$;
create trigger stock_touched after update of free on stock_shard for each row when (new.free > old.free or new.free < old.free and new.free <= 1000)
    execute function stock_touched();
create trigger stock_touched after insert on stock_sku for each row execute function stock_touched();
insert into stock_watch (sku) select k.sku from stock_sku k;

-- The level of some SKUs as it was told last, and as it is; and whether it is enough to look again when free units change. OFFSET 0 keeps each sum from being
-- worked out wherever it is named.
create function stock_levels(p_sku text[], p_low bigint)
returns table (sku text, told text, level text, available bigint, is_at_rest boolean)
language sql stable as $$
    select n.sku, n.told, n.level, n.available, n.level = n.told and (n.leased is null or n.free > p_low)
    from (select s.*, s.free + coalesce(s.leased, 0) as available,
              case when s.free + coalesce(s.leased, 0) = 0 then 'sold_out' when s.free + coalesce(s.leased, 0) <= p_low then 'low' else 'in_stock' end as level
          from (select t.sku,
                    coalesce((select l.level from stock_level l where l.sku = t.sku), 'in_stock') as told,
                    coalesce((select sum(x.free) from stock_shard x where x.sku = t.sku), 0)::bigint as free,
                    (select sum(l.units - l.used) from stock_lease l where l.sku = t.sku and l.state <> 'closed')::bigint as leased
                from unnest(p_sku) t(sku) offset 0) s) n
$$;

-- Looks at the p_limit SKUs on watch that follow p_after, and decides the changes of their levels. However many do so at once, a change is decided once: the first
-- look takes no lock, and what it finds is looked at again under the lock of the level, which whoever holds it has to himself. low -> in_stock is told to nobody.
-- Answers the last SKU (NULL after the last piece) and how many events there are.
create function stock_decide(p_low bigint, p_after text, p_limit integer)
returns table (last_sku text, events bigint)
language plpgsql set enable_seqscan = off as $$
declare
    v_sku text[];
    v_changed text[];
    v_resting text[];
    v_events bigint := 0;
begin
    if p_low > 1000 and p_after = '' then
        insert into stock_watch (sku) select distinct l.sku from stock_lease l where l.state <> 'closed' order by 1 on conflict do nothing;
    end if;
    v_sku := array(select w.sku from stock_watch w where w.sku > p_after order by w.sku limit p_limit);
    select array_agg(s.sku order by s.sku) filter (where s.level <> s.told), array_agg(s.sku order by s.sku) filter (where s.is_at_rest)
        into v_changed, v_resting from stock_levels(v_sku, p_low) s;

    if v_changed is not null then
        insert into stock_level (sku, level, version) select t.sku, 'in_stock', 0 from unnest(v_changed) t(sku) on conflict do nothing;
        v_changed := array(select l.sku from stock_level l where l.sku = any(v_changed) order by l.sku for no key update skip locked);
        with changed as (
            update stock_level l set level = s.level, at = date_trunc('milliseconds', clock_timestamp()),
                    version = l.version + case when s.told = 'low' and s.level = 'in_stock' then 0 else 1 end
                from stock_levels(v_changed, p_low) s
                where l.sku = s.sku and l.sku = any(v_changed) and s.level <> s.told
                returning l.sku, old.version as version_before, l.version, l.level, old.level as previous, s.available, l.at)
            insert into stock_event (sku, version, event, level, previous, available, at)
                select c.sku, c.version, case when c.previous = 'sold_out' then 'back_in_stock' else c.level end, c.level, c.previous, c.available, c.at
                from changed c where c.version > c.version_before;
        get diagnostics v_events = row_count;
    end if;

    -- A level that has just changed stays on watch, so that whatever happened beside the decision is seen next time.
    if v_resting is not null then
        v_resting := array(select w.sku from stock_watch w where w.sku = any(v_resting) order by w.sku for update skip locked);
        delete from stock_watch w using stock_levels(v_resting, p_low) s
            where w.sku = s.sku and w.sku = any(v_resting) and s.is_at_rest;
    end if;
    return query select case when cardinality(v_sku) = p_limit then v_sku[p_limit] end, v_events;
end $$;
