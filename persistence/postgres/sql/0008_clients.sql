-- Clients that are looked after over HTTP: a token has a public number, since its hash is nobody's business, and shows when it was used last.
alter table api_client add column version integer not null default 1;
comment on column api_client.version is 'Of scopes and channels.';
alter table api_token
    add column token_id bigint generated always as identity unique,
    add column last_used_at timestamptz;
comment on column api_token.last_used_at is 'To the minute: workers note it in memory, and write it at most once a minute.';
create index api_token_client on api_token (client_id);
