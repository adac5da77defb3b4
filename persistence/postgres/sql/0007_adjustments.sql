-- Adjustments: a total that changes by so many units, once per key; and movements that can be listed. Every change of a total goes through stock_set, which writes
-- the movement; an adjustment leaves its key there, so that the movement is the answer to whoever asks again.
alter table stock_movement add column key_hash uuid, add column fingerprint uuid;
create unique index stock_movement_key on stock_movement (key_hash) where key_hash is not null;
comment on column stock_movement.key_hash is 'Of an adjustment, until its key is forgotten: keyed hash of client, route and key. The fingerprint is that of SKU and body.';

-- stock_adjust: total + p_delta, or nothing happens. The stock's row is locked first, so that of several calls with one key all but the first find the movement. A
-- known key beats every refusal.
-- outcome: adjusted or replayed, with the movement; key_reused (the key belongs to another SKU or body), not_found (the SKU has no stock), version_mismatch,
-- out_of_range, below_held (units are held or in somebody's hands).
create function stock_adjust(p_key uuid, p_fingerprint uuid, p_sku text, p_delta bigint, p_actor text, p_reason text, p_if_version bigint)
returns table (outcome text, movement_id bigint, sku text, delta bigint, total bigint, actor text, reason text, at timestamptz)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_sku stock_sku;
    v_movement stock_movement;
    v_outcome text;
    v_id bigint;
begin
    select * into v_sku from stock_sku k where k.sku = p_sku for update;
    select * into v_movement from stock_movement m where m.key_hash = p_key;
    if v_movement.fingerprint = p_fingerprint then
        return query select 'replayed', v_movement.movement_id, v_movement.sku, v_movement.delta, v_movement.total, v_movement.actor, v_movement.reason, v_movement.at;
        return;
    end if;
    v_outcome := case
        when v_movement.movement_id is not null then 'key_reused'
        when v_sku.sku is null then 'not_found'
        when p_if_version <> v_sku.version then 'version_mismatch'
        when v_sku.total + p_delta > 9007199254740991 then 'out_of_range'
        when v_sku.total + p_delta < 0 then 'below_held'
    end;

    -- The block gives up everything when another SKU's adjustment under the same key was faster.
    if v_outcome is null then
        begin
            select s.outcome into v_outcome from stock_set(p_sku, v_sku.total + p_delta, v_sku.shards, p_actor, p_reason, null) s;
            if v_outcome = 'set' then
                v_id := currval(pg_get_serial_sequence('stock_movement', 'movement_id'));
                return query
                    update stock_movement m set key_hash = p_key, fingerprint = p_fingerprint where m.movement_id = v_id
                        returning 'adjusted', m.movement_id, m.sku, m.delta, m.total, m.actor, m.reason, m.at;
                return;
            end if;
        exception when unique_violation then
            v_outcome := 'key_reused';
        end;
    end if;
    return query select v_outcome, null::bigint, null::text, null::bigint, null::bigint, null::text, null::text, null::timestamptz;
end $$;
