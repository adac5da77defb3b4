-- The journal: what a worker took while the ledger was away. Its records come here later, each as a row: an order, an alias of the order that holds its key, or an
-- order that is cancelled because its units are gone.

alter table worker add column journal_records integer not null default 0 check (journal_records >= 0);
comment on column worker.journal is 'The journal that the owner may have orders in. As long as it is named, only who holds the journal''s lock may close the owner''s leases.';
comment on column worker.journal_records is 'Orders in its journal that are not here yet, as the owner last said.';

create table order_alias (
    order_id uuid primary key,
    of_order uuid not null,
    same_body boolean not null,
    at timestamptz not null default clock_timestamp()
);
comment on table order_alias is 'Records of a journal whose key belonged to another order by the time they came here. They hold nothing.';

-- commit_lost: orders that were acknowledged and whose units are gone are stored all the same, as created and then cancelled. The caller copies the rows of those that
-- are not named in the answer, two of them in order_history, and commits. They hold no units, so no lease and no limit is touched.
--
-- Orders are named by their position, from 1, in arrays sorted by key. A batch id that exists raises 23505.
create function commit_lost(p_batch uuid, p_key uuid[], p_order uuid[], p_fingerprint uuid[])
returns table (at integer, stored_order uuid, stored_fingerprint uuid)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_known uuid[];
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        raise exception 'commit_lost needs READ COMMITTED: its statements have to see what they waited for';
    end if;
    insert into batch (batch_id, outcome) values (p_batch, 'committed');
    with claimed as (
        insert into idempotency_key (key_hash, order_id, fingerprint)
            select t.k, t.o, t.f from unnest(p_key, p_order, p_fingerprint) t(k, o, f)
            on conflict do nothing
            returning order_id)
        select coalesce(array_agg(t.order_id), '{}') into v_known
            from unnest(p_order) t(order_id) left join claimed c on c.order_id = t.order_id where c.order_id is null;
    insert into outbox (batch_id, order_ids, versions)
        select p_batch, array_agg(t.o order by t.o, v.version), array_agg(v.version order by t.o, v.version)
        from unnest(p_order) t(o) cross join (values (1), (2)) v(version) where t.o <> all(v_known) having count(*) > 0;
    return query
        select t.n::integer, k.order_id, k.fingerprint
        from unnest(p_key, p_order) with ordinality t(k, o, n)
        join idempotency_key k on k.key_hash = t.k and k.key_hash = any(p_key)
        where t.o = any(v_known);
end $$;
