-- Settings that change while workers run, in versions, and the shards that they decide.

create table live_settings (
    version bigint primary key check (version >= 1),
    at timestamptz not null default clock_timestamp(),
    actor text not null,
    reason text,
    document jsonb not null check (jsonb_typeof(document) = 'object')
);
comment on table live_settings is 'The highest version is in force. Versions are never changed: going back is a new version with the content of an old one.';
insert into revision (topic) values ('settings');

alter table stock_sku add column shards_fixed boolean not null default false;
comment on column stock_sku.shards_fixed is 'The number of shards was given by command; rules leave it alone.';
-- Until now there were 4 unless somebody said otherwise: whatever differs was somebody's decision, and stays.
update stock_sku set shards_fixed = true where shards <> 4;

-- Reshards one SKU as a rule says, unless its shards were given by command meanwhile: whoever fixes them waits for the row's lock, or is seen here.
-- One SKU per call, so that no takes wait for the shards of others.
create function stock_reshard_by_rule(p_sku text, p_shards integer) returns boolean
language plpgsql set enable_seqscan = off as $$
begin
    perform 1 from stock_sku k where k.sku = p_sku and not k.shards_fixed and k.shards <> p_shards for no key update;
    return found and stock_reshard(p_sku, p_shards);
end $$;
