-- Changes of products and their events, and what has been told of stock. An event waits in product_event or stock_event until the stream has acknowledged it, and goes
-- to the history then, from which it can be encoded again to the same bytes however long ago it was sent.

create table product_event (
    sku text collate "C" not null,
    version integer not null,
    title text not null,
    price bigint not null,
    currency text not null,
    stocked boolean not null,
    active boolean not null,
    limit_units bigint,
    changed text[] not null,
    at timestamptz not null,
    primary key (sku, version)
);
comment on table product_event is 'Changes of products that the stream has not acknowledged.';
create table product_history (like product_event including all);
comment on table product_history is 'Changes of products that have been told.';
create table stock_history (like stock_event including all);
comment on table stock_history is 'Changes of level that have been told. What was told before schema 0009 is not there.';

-- Whoever writes a product, of whichever version of Floodgate, tells of it in the same transaction. A write that changes nothing is not told.
create function product_changed() returns trigger
language plpgsql as $$
declare
    v_changed text[] := array_remove(array[
        case when old.title is distinct from new.title then 'title' end,
        case when old.price is distinct from new.price then 'price' end,
        case when old.currency is distinct from new.currency then 'currency' end,
        case when old.stocked is distinct from new.stocked then 'stocked' end,
        case when old.active is distinct from new.active then 'active' end,
        case when old.limit_units is distinct from new.limit_units then 'limit' end], null);
begin
    if cardinality(v_changed) > 0 then
        insert into product_event (sku, version, title, price, currency, stocked, active, limit_units, changed, at)
            values (new.sku, new.version, new.title, new.price, new.currency, new.stocked, new.active, new.limit_units, v_changed,
                    date_trunc('milliseconds', clock_timestamp()));
    end if;
    return null;
end $$;
create trigger product_changed after insert or update on product for each row execute function product_changed();
