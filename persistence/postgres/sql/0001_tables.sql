-- The tables of the ledger. orders, order_lines, order_history, order_key and batch are range-partitioned on the id itself (UUIDv7: the id's time picks
-- the partition), so a look-up by id touches one partition and a time range is an id range. There is no DEFAULT partition: it would forbid a plain ATTACH.

create table revision (
    topic text primary key,
    value bigint not null default 0
);
comment on table revision is 'A writer of a topic raises its value under the row lock, so values are ordered as the commits are and a reader that polls skips none.';
insert into revision (topic) values ('catalogue'), ('clients');

create table product (
    sku text collate "C" primary key check (length(sku) between 1 and 64),
    title text not null check (length(title) <= 200),
    price bigint not null check (price between 0 and 9007199254740991),
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    stocked boolean not null,
    active boolean not null,
    version integer not null,
    revision bigint not null,
    updated_at timestamptz not null default clock_timestamp()
);
create index product_revision on product (revision);

create table api_client (
    client_id integer generated always as identity primary key,
    name text not null unique check (name ~ '^[a-z0-9-]{1,64}$'),
    scopes text[] not null,
    channels text[] not null,
    created_at timestamptz not null default clock_timestamp()
);
create table api_token (
    token_hash bytea primary key check (length(token_hash) = 32),
    client_id integer not null references api_client,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz,
    revoked_at timestamptz
);
comment on column api_token.token_hash is 'SHA-256 of the token, which has 256 random bits and stands nowhere.';

create table batch (
    batch_id uuid primary key,
    outcome text not null check (outcome in ('committed', 'fenced'))
) partition by range (batch_id);

create table idempotency_key (
    key_hash uuid primary key,
    order_id uuid not null,
    fingerprint uuid not null
);
create index idempotency_key_age on idempotency_key using brin (order_id);

create table orders (
    order_id uuid primary key,
    client_id integer not null,
    channel text not null,
    currency text not null,
    customer_id text,
    external_id text,
    sale_id text,
    status text not null check (status in (
        'pending_payment', 'paid', 'preparing', 'shipped', 'completed', 'after_sales', 'cancelled', 'expired', 'refunding', 'refunded')),
    version integer not null check (version >= 1),
    total bigint not null check (total between 0 and 9007199254740991),
    metadata json,
    adjustments json,
    placed_at timestamptz,
    paid_reference text,
    paid_at timestamptz,
    personal bytea,
    created_at timestamptz not null,
    expires_at timestamptz
) partition by range (order_id);
create index orders_client on orders (client_id, order_id);
create index orders_customer on orders (customer_id, order_id) where customer_id is not null;
create index orders_external on orders (external_id, order_id) where external_id is not null;
comment on column orders.personal is 'AES-256-GCM ciphertext of ship_to and note under the order''s own key, which order_key holds wrapped.';
comment on column orders.metadata is 'json, not jsonb: an event is encoded again from this text and has to come out as the same bytes.';

create table order_lines (
    order_id uuid not null,
    line integer not null check (line >= 1),
    sku text collate "C" not null,
    title text not null,
    quantity integer not null check (quantity >= 1),
    unit_price bigint not null check (unit_price >= 0),
    amount bigint not null check (amount >= 0),
    stocked boolean not null,
    primary key (order_id, line)
) partition by range (order_id);
create index order_lines_sku on order_lines (sku, order_id);
comment on column order_lines.stocked is 'Whether the line holds units of stock.';

create table order_history (
    order_id uuid not null,
    version integer not null,
    at timestamptz not null,
    event text not null,
    status text not null,
    previous_status text,
    actor text not null,
    reason text,
    changed text[] not null,
    traceparent text,
    primary key (order_id, version)
) partition by range (order_id);
comment on table order_history is 'One row per version of an order. Together with orders and order_lines it gives the event of that version, byte for byte.';

create table order_key (
    order_id uuid primary key,
    master_version integer not null,
    wrapped bytea not null
) partition by range (order_id);
comment on table order_key is 'The key of an order''s personal data, wrapped by the master key of that version. Deleting the row erases the data.';

create table outbox (
    batch_id uuid primary key,
    order_ids uuid[] not null,
    versions integer[] not null,
    created_at timestamptz not null default clock_timestamp()
);
comment on table outbox is 'Committed changes whose events the stream has not acknowledged. Ids only: storing the events doubled the WAL.';

create table worker (
    owner uuid primary key,
    host text not null,
    pid integer not null,
    lane integer not null,
    journal text,
    state text not null default 'alive' check (state in ('alive', 'dead', 'left')),
    started_at timestamptz not null default clock_timestamp(),
    seen_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);
comment on table worker is 'Incarnations of committers. An owner is a process and lane, never a worker''s number: two live workers can share one.';

create table stock_sku (
    sku text collate "C" primary key,
    total bigint not null check (total between 0 and 9007199254740991),
    owed bigint not null default 0 check (owed >= 0),
    shards integer not null check (shards between 1 and 256),
    version bigint not null default 1
);
create table stock_shard (
    sku text collate "C" not null,
    shard integer not null,
    free bigint not null check (free >= 0),
    version bigint not null default 1,
    primary key (sku, shard)
) with (fillfactor = 50);
create table stock_lease (
    lease_id uuid primary key,
    owner uuid not null,
    sku text collate "C" not null,
    units bigint not null,
    used bigint not null default 0,
    state text not null default 'active' check (state in ('active', 'closed')),
    check (0 <= used and used <= units)
) with (fillfactor = 50);
-- Two words for one state, so that a question by SKU cannot be answered by a full walk of the owners' index: on an empty
-- table both look equally cheap, and a plan made then would be kept.
create index stock_lease_active on stock_lease (sku) where state <> 'closed';
create index stock_lease_owner on stock_lease (owner) where state = 'active';
create table stock_movement (
    movement_id bigint generated always as identity primary key,
    sku text collate "C" not null,
    delta bigint not null,
    total bigint not null,
    actor text not null,
    reason text,
    at timestamptz not null default clock_timestamp()
);
create index stock_movement_sku on stock_movement (sku, movement_id);

create table consumer_event (
    consumer text not null,
    event_id text not null,
    seen_at timestamptz not null default clock_timestamp(),
    primary key (consumer, event_id)
);
create index consumer_event_age on consumer_event using brin (seen_at);
create table order_feed (
    minute timestamptz not null,
    channel text not null,
    orders bigint not null,
    units bigint not null,
    primary key (minute, channel)
);
comment on table order_feed is 'Read model of the projector: orders and units created a minute, by channel. Fed by the events alone.';
