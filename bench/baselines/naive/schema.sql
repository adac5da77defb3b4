-- The tables of the naive peer, as its tutorials have them: an order is one row, its lines are JSON.
create table products (
    sku text primary key,
    title text not null,
    price bigint not null
);
create table orders (
    id uuid primary key,
    channel text not null,
    currency text not null,
    customer_id text,
    items jsonb not null,
    note text,
    ship_to jsonb,
    total bigint not null,
    status text not null,
    created_at timestamptz not null default now()
);
