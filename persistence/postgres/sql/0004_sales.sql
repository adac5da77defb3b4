-- Sales: SKUs at prices of their own in a span of time, with units of their own. Those units are a stock like any other, under the key stock_key(sale, SKU), apart
-- from the SKU's everyday stock; every function that moves units works on it.
insert into revision (topic) values ('sales');

create table sale (
    sale_id text collate "C" primary key check (sale_id ~ '^[a-z0-9-]{1,64}$'),
    title text not null check (length(title) <= 200),
    starts_at timestamptz not null,
    ends_at timestamptz not null,
    payment_timeout_s integer check (payment_timeout_s >= 1),
    version integer not null,
    revision bigint not null,
    updated_at timestamptz not null default clock_timestamp(),
    check (starts_at <= ends_at),
    check (starts_at >= '2000-01-01T00:00:00Z' and ends_at < '9999-01-01T00:00:00Z')
);
comment on table sale is 'Open in [starts_at, ends_at) by this server''s clock, in whole milliseconds as orders have them.';
create index sale_revision on sale (revision);

create table sale_item (
    sale_id text collate "C" not null references sale,
    sku text collate "C" not null references product,
    price bigint not null check (price between 0 and 9007199254740991),
    currency text not null,
    limit_units bigint check (limit_units >= 1),
    primary key (sale_id, sku)
);
comment on table sale_item is 'The units of an item are the total of its stock; they stand nowhere else.';

create table sale_refusal (
    sale_id text collate "C" not null references sale,
    code text not null,
    count bigint not null,
    primary key (sale_id, code)
) with (fillfactor = 50);
comment on table sale_refusal is 'Counted by the workers in memory and added here every second: what a crash takes with it was never counted.';

create index orders_sale on orders (sale_id, order_id) where sale_id is not null;

-- sale_put: creates or replaces a sale with all its items, or changes nothing. Arrays run in parallel; a SKU stands there once. Locks: the topic's row, which puts
-- all writers of sales in a row; then the stocks, in the order of their keys like everybody else.
-- Answers one row `put`, or why nothing was changed: version_mismatch; or for each SKU at fault unknown_sku, not_stocked, or below_held (units of it, or of an item
-- that would be removed, are held or in somebody's hands). p_if_version 0: there must be no such sale yet.
create function sale_put(
    p_sale text, p_title text, p_starts timestamptz, p_ends timestamptz, p_payment_timeout_s integer,
    p_sku text[], p_price bigint[], p_units bigint[], p_limit bigint[], p_shards integer[], p_actor text, p_if_version integer)
returns table (outcome text, sku text)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_version integer;
    v_revision bigint;
    v_sku text;
    v_units bigint;
    v_shards integer;
    v_outcome text;
    v_held text[] := '{}';
begin
    perform 1 from revision r where r.topic = 'sales' for no key update;
    select s.version into v_version from sale s where s.sale_id = p_sale;
    if p_if_version is not null and p_if_version <> coalesce(v_version, 0) then
        return query select 'version_mismatch', null::text;
        return;
    end if;
    return query
        select case when p.sku is null then 'unknown_sku' else 'not_stocked' end, t.sku
        from unnest(p_sku) t(sku) left join product p on p.sku = t.sku and p.sku = any(p_sku)
        where p.sku is null or not p.stocked order by t.sku collate "C";
    if found then
        return;
    end if;

    -- The block gives up everything when one of the stocks refuses.
    begin
        update revision r set value = r.value + 1 where r.topic = 'sales' returning r.value into v_revision;
        insert into sale (sale_id, title, starts_at, ends_at, payment_timeout_s, version, revision)
            values (p_sale, p_title, p_starts, p_ends, p_payment_timeout_s, 1, v_revision)
            on conflict (sale_id) do update set title = excluded.title, starts_at = excluded.starts_at, ends_at = excluded.ends_at,
                payment_timeout_s = excluded.payment_timeout_s, version = sale.version + 1, revision = excluded.revision, updated_at = clock_timestamp();
        for v_sku, v_units, v_shards in
            select a.sku, a.units, a.shards
            from (select t.sku, t.units, t.shards from unnest(p_sku, p_units, p_shards) t(sku, units, shards)
                  union all select i.sku, 0, 1 from sale_item i where i.sale_id = p_sale and i.sku <> all(p_sku)) a
            order by a.sku collate "C"
        loop
            continue when exists (select from stock_sku k where k.sku = stock_key(p_sale, v_sku) and k.total = v_units);
            select s.outcome into v_outcome from stock_set(stock_key(p_sale, v_sku), v_units, v_shards, p_actor, 'sale ' || p_sale, null) s;
            if v_outcome = 'below_held' then
                v_held := v_held || v_sku;
            end if;
        end loop;
        if cardinality(v_held) > 0 then
            raise exception 'units are held' using errcode = 'FG004';
        end if;
        delete from sale_item i where i.sale_id = p_sale and i.sku <> all(p_sku);
        insert into sale_item (sale_id, sku, price, currency, limit_units)
            select p_sale, t.sku, t.price, p.currency, t.units_max
            from unnest(p_sku, p_price, p_limit) t(sku, price, units_max) join product p on p.sku = t.sku and p.sku = any(p_sku)
            on conflict (sale_id, sku) do update set price = excluded.price, currency = excluded.currency, limit_units = excluded.limit_units;
    exception when sqlstate 'FG004' then
        return query select 'below_held', h from unnest(v_held) h;
        return;
    end;
    return query select 'put', null::text;
end $$;
