-- The life of an order: what may become of it (a guard that no statement gets round), and the end of one that nobody has paid.

-- The pairs of states are those of gateway/domain/lifecycle.py; a test compares the two. A restored ledger is brought up to date from the stream, several versions at
-- once: whoever does that says so with `set local floodgate.recovering = 'on'`.
create function order_guard() returns trigger
language plpgsql as $$
begin
    if current_setting('floodgate.recovering', true) = 'on' then
        return new;
    end if;
    if (new.order_id, new.client_id, new.channel, new.currency, new.customer_id, new.external_id, new.sale_id, new.total, new.placed_at, new.created_at)
        is distinct from
        (old.order_id, old.client_id, old.channel, old.currency, old.customer_id, old.external_id, old.sale_id, old.total, old.placed_at, old.created_at) then
        raise exception 'what order % was placed with does not change', old.order_id using errcode = 'FG005';
    end if;
    if new.version = old.version and new.status = old.status then
        return new;
    end if;
    if new.version <> old.version + 1 then
        raise exception 'order % goes from version % to %', old.order_id, old.version, new.version using errcode = 'FG005';
    end if;
    if not (
        case old.status
        when 'pending_payment' then new.status in ('pending_payment', 'paid', 'cancelled', 'expired')
        when 'paid' then new.status in ('paid', 'preparing', 'cancelled', 'refunding')
        when 'preparing' then new.status in ('paid', 'preparing', 'shipped', 'refunding')
        when 'shipped' then new.status in ('shipped', 'completed', 'after_sales', 'refunding')
        when 'completed' then new.status in ('completed', 'after_sales', 'refunding')
        when 'after_sales' then new.status in ('shipped', 'completed', 'after_sales', 'refunding')
        when 'cancelled' then new.status in ('cancelled')
        when 'expired' then new.status in ('expired')
        when 'refunding' then new.status in ('paid', 'preparing', 'shipped', 'completed', 'after_sales', 'refunding', 'refunded')
        when 'refunded' then new.status in ('refunded')
        else false end
    ) then
        raise exception 'order % is % and cannot become %', old.order_id, old.status, new.status using errcode = 'FG006';
    end if;
    return new;
end $$;
create trigger order_guard before update on orders for each row execute function order_guard();

-- When this server's clock was put forward. An order that was placed before has as much longer to be paid, so that no step of a clock ends one early. Put back, the
-- clock ends orders late by as much.
create table clock_step (
    step bigint generated always as identity primary key,
    at timestamptz not null,
    ahead interval not null check (ahead > interval '0')
);
comment on table clock_step is 'at: when it was noticed, by the new time. Several stewards notice the same step; it is noted once.';

-- The last look of a host's stewards at this server's clock, so that the next one of them, after a restart, sees what was done to the clock meanwhile.
create table clock_look (
    boot text primary key,
    ledger_time timestamptz not null,
    asked double precision not null,
    answered double precision not null,
    steps bigint not null
) with (fillfactor = 50);
comment on table clock_look is 'boot: the boot of the host, whose monotonic clock asked and answered are read from, in seconds. steps: the last step of clock_step that the look takes for granted.';

-- clock_stepped: notes that the clock was put forward by p_ahead, noticed at p_at, of which steps after number p_known are a part that others have noted. Answers how
-- much of it was news, and the number of the last step that is known now.
create function clock_stepped(p_known bigint, p_at timestamptz, p_ahead interval) returns table (news interval, step bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    v_news interval;
    v_last bigint;
begin
    perform pg_advisory_xact_lock(301927976775); -- 0x464C4F4F47, the lock of steps of the clock
    select p_ahead - coalesce(sum(s.ahead) filter (where s.step > p_known), interval '0'), coalesce(max(s.step), 0) into v_news, v_last from clock_step s;
    if v_news <= interval '0.1 s' then
        return query select interval '0', v_last;
    else
        insert into clock_step (at, ahead) values (p_at, v_news) returning step into v_last;
        return query select v_news, v_last;
    end if;
end $$;

-- expire: up to p_most orders whose time to be paid was over at p_until, those that have been so for longest first. They give back their units and what their buyers have
-- taken of limits. One statement; any number may run: an order that somebody else holds is left to him, and is looked at again by the next call. p_until is what the
-- caller has read of this server's clock, and has compared with its own: the clock may be put forward, or back, at any moment after that.
-- The first p_skip of those that are due are passed over: a caller who finds that one of them cannot be ended leaves it, and ends the others.
-- Nobody is paid and expired: both need the order's row, and find the state that the other one has left.
-- Answers the orders, in the order of their ids, their versions, the instant, and the stock keys that have more free units than before; no row when none is due.
create function order_expire(p_until timestamptz, p_most integer, p_skip integer, p_home integer, p_batch uuid, p_actor text)
returns table (order_ids uuid[], versions integer[], at timestamptz, skus text[])
language plpgsql set enable_seqscan = off set plan_cache_mode = force_custom_plan as $$
#variable_conflict use_column
declare
    v_at timestamptz := date_trunc('milliseconds', clock_timestamp());
    v_until timestamptz := least(p_until, clock_timestamp());
    v_orders uuid[];
    v_versions integer[];
    v_first uuid;
    v_last uuid;
    v_skus text[];
    v_customers text[];
    v_units bigint[];
    v_meant bigint;
    v_moved bigint;
begin
    if exists (select from clock_step) then
        select array_agg(d.order_id order by d.order_id) into v_orders from (
            select o.order_id from orders o
            where o.status = 'pending_payment' and o.expires_at <= v_until
                and o.expires_at + (select coalesce(sum(s.ahead), interval '0') from clock_step s where s.at > o.created_at) <= v_until
            order by o.expires_at limit p_most offset p_skip for no key update skip locked) d;
    else
        select array_agg(d.order_id order by d.order_id) into v_orders from (
            select o.order_id from orders o
            where o.status = 'pending_payment' and o.expires_at <= v_until
            order by o.expires_at limit p_most offset p_skip for no key update skip locked) d;
    end if;
    if v_orders is null then
        return;
    end if;
    v_first := v_orders[1];
    v_last := v_orders[cardinality(v_orders)];

    with ended as (
        update orders o set status = 'expired', version = o.version + 1
            where o.order_id = any(v_orders) and o.order_id between v_first and v_last
            returning o.order_id, o.version)
        select array_agg(e.version order by e.order_id) into v_versions from ended e;
    insert into order_history (order_id, version, at, event, status, previous_status, actor, reason, changed)
        select t.order_id, t.version, v_at, 'expired', 'expired', 'pending_payment', p_actor, 'payment_timeout', '{status}'
        from unnest(v_orders, v_versions) t(order_id, version);

    select array_agg(t.sku order by t.sku collate "C", t.customer collate "C"), array_agg(t.customer order by t.sku collate "C", t.customer collate "C"),
           array_agg(t.units order by t.sku collate "C", t.customer collate "C"), count(*)
        into v_skus, v_customers, v_units, v_meant from (
        select stock_key(o.sale_id, l.sku) sku, o.customer_id customer, sum(l.quantity)::bigint units
        from order_lines l join orders o on o.order_id = l.order_id and o.order_id = any(v_orders) and o.order_id between v_first and v_last
        where l.order_id = any(v_orders) and l.order_id between v_first and v_last and l.limited
        group by 1, 2) t;
    if v_meant > 0 then
        select count(*) into v_moved
            from unnest(v_skus, v_customers) t(sku, customer)
            cross join lateral (select from buyer_taken b where b.sku = t.sku and b.customer = t.customer for no key update) b;
        update buyer_taken b set taken = b.taken - t.units
            from unnest(v_skus, v_customers, v_units) t(sku, customer, units) where b.sku = t.sku and b.customer = t.customer;
        if v_moved <> v_meant then
            raise exception 'expiry lowers % limits, and there are %', v_meant, v_moved;
        end if;
    end if;

    select array_agg(t.sku), array_agg(t.units) into v_skus, v_units from (
        select stock_key(o.sale_id, l.sku) sku, sum(l.quantity)::bigint units
        from order_lines l join orders o on o.order_id = l.order_id and o.order_id = any(v_orders) and o.order_id between v_first and v_last
        where l.order_id = any(v_orders) and l.order_id between v_first and v_last and l.stocked
        group by 1) t;
    if v_skus is not null then
        perform stock_return(p_home, v_skus, v_units);
    end if;

    insert into batch (batch_id, outcome) values (p_batch, 'committed');
    insert into outbox (batch_id, order_ids, versions) values (p_batch, v_orders, v_versions);
    return query select v_orders, v_versions, v_at, coalesce(v_skus, '{}');
end $$;

-- pay: the channel has been paid for an order that waits for it. One statement, for version p_version alone, so that a call that is repeated changes nothing; with
-- p_client only an order of that client exists. outcome: paid (the order has version p_version + 1 now), not_found, version_mismatch, not_payable (because of its status).
create function order_pay(
    p_order uuid, p_version integer, p_client integer, p_reference text, p_paid_at timestamptz, p_actor text, p_traceparent text, p_batch uuid)
returns table (outcome text, status text)
language plpgsql set enable_seqscan = off as $$
#variable_conflict use_column
declare
    v_order record;
begin
    select o.client_id, o.status, o.version into v_order from orders o where o.order_id = p_order for no key update;
    if not found or p_client <> v_order.client_id then
        return query select 'not_found', null::text;
        return;
    end if;
    if v_order.version <> p_version or v_order.status <> 'pending_payment' then
        return query select case when v_order.version <> p_version then 'version_mismatch' else 'not_payable' end, v_order.status;
        return;
    end if;
    update orders o set status = 'paid', version = p_version + 1, paid_reference = p_reference, paid_at = p_paid_at where o.order_id = p_order;
    insert into order_history (order_id, version, at, event, status, previous_status, actor, changed, traceparent)
        values (p_order, p_version + 1, date_trunc('milliseconds', clock_timestamp()), 'paid', 'paid', 'pending_payment', p_actor, '{status,paid}', p_traceparent);
    insert into batch (batch_id, outcome) values (p_batch, 'committed');
    insert into outbox (batch_id, order_ids, versions) values (p_batch, array[p_order], array[p_version + 1]);
    return query select 'paid', 'paid';
end $$;
