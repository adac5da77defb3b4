-- The checks of the audit. Each query returns the rows that are off; none off means that what its heading promises holds.
-- Units of an order are held until it is cancelled, has expired, or was refunded. They are counted by stock key: those of a sale apart from the SKU's others.

-- stock_balances: I1, I2: total + owed = free + unsold in active leases + held by live orders, for each SKU
with held as (select stock_key(o.sale_id, l.sku) sku, sum(l.quantity) units from order_lines l join orders o using (order_id)
              where l.stocked and o.status not in ('cancelled', 'expired', 'refunded') group by 1),
     free as (select sku, sum(free) units from stock_shard group by sku),
     leased as (select sku, sum(units - used) units from stock_lease where state = 'active' group by sku)
select coalesce(k.sku, held.sku, free.sku, leased.sku) as sku, coalesce(k.total, 0) as total, coalesce(k.owed, 0) as owed,
       coalesce(free.units, 0)::bigint as free, coalesce(leased.units, 0)::bigint as leased, coalesce(held.units, 0)::bigint as held
from stock_sku k full join held on held.sku = k.sku full join free on free.sku = coalesce(k.sku, held.sku)
     full join leased on leased.sku = coalesce(k.sku, held.sku, free.sku)
where coalesce(k.total, 0) + coalesce(k.owed, 0) <> coalesce(free.units, 0) + coalesce(leased.units, 0) + coalesce(held.units, 0);

-- not_oversold: I1: units held by live orders <= total + owed, for each SKU
with held as (select stock_key(o.sale_id, l.sku) sku, sum(l.quantity)::bigint units from order_lines l join orders o using (order_id)
              where l.stocked and o.status not in ('cancelled', 'expired', 'refunded') group by 1)
select held.sku, held.units as held, k.total + k.owed as stock from held left join stock_sku k on k.sku = held.sku
where held.units > coalesce(k.total + k.owed, 0);

-- limits_agree: I6, I7: what a buyer has taken of a limit = units of limited lines of his live orders, for each stock key
with held as (select stock_key(o.sale_id, l.sku) sku, o.customer_id customer, sum(l.quantity)::bigint units from order_lines l join orders o using (order_id)
              where l.limited and o.status not in ('cancelled', 'expired', 'refunded') group by 1, 2)
select coalesce(b.sku, held.sku) as sku, coalesce(b.customer, held.customer) as customer, b.taken, held.units as held
from buyer_taken b full join held on held.sku = b.sku and held.customer = b.customer
where coalesce(b.taken, 0) <> coalesce(held.units, 0);

-- totals_add_up: an order has lines, and its total is the sum of their amounts and its adjustments
select o.order_id::text, o.total from orders o
left join (select order_id, sum(amount) amount, bool_and(amount = quantity * unit_price) exact, min(line) first, max(line) last, count(*) lines
           from order_lines group by order_id) l using (order_id)
where l.order_id is null or not l.exact or l.first <> 1 or l.last <> l.lines or o.total <> l.amount
      + coalesce((select sum((a ->> 'amount')::bigint) from json_array_elements(o.adjustments) a), 0);

-- history_is_whole: I5: an order has one row of history for each version, the last of which agrees with it
select o.order_id::text, o.version, o.status from orders o
left join (select order_id, count(*) versions, max(version) last from order_history group by order_id) h using (order_id)
left join order_history now on now.order_id = o.order_id and now.version = o.version
where h.versions is distinct from o.version::bigint or h.last is distinct from o.version or now.status is distinct from o.status;

-- rows_have_orders: lines, history and keys belong to orders
select 'order_lines' as "table", l.order_id::text from order_lines l left join orders o using (order_id) where o.order_id is null
union all select 'order_history', h.order_id::text from order_history h left join orders o using (order_id) where o.order_id is null
union all select 'order_key', k.order_id::text from order_key k left join orders o using (order_id) where o.order_id is null;

-- one_order_per_key: I4: a key belongs to one order that exists, and an order to one key
select k.order_id::text, count(*) as keys from idempotency_key k group by k.order_id having count(*) > 1
union all select k.order_id::text, 0 from idempotency_key k left join orders o using (order_id) where o.order_id is null;

-- outbox_is_committed: I5: what waits in the outbox are versions of orders that exist, of committed batches
select b.batch_id::text, t.order_id::text, t.version from outbox b cross join unnest(b.order_ids, b.versions) t(order_id, version)
left join order_history h on h.order_id = t.order_id and h.version = t.version
left join batch on batch.batch_id = b.batch_id
where b.format = 1 and (h.order_id is null or batch.outcome is distinct from 'committed');

-- personal_data_is_sealed: I8: a key of personal data belongs to an order that has some
select k.order_id::text from order_key k join orders o using (order_id) where o.personal is null;

-- partitions_are_ahead: every partitioned table takes rows for the next 24 hours
select p.relname as "table" from pg_class p where p.relkind = 'p' and p.relnamespace = 'public'::regnamespace and not exists (
    select from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = p.oid
    and left(replace(split_part(pg_get_expr(c.relpartbound, c.oid), '''', 4), '-', ''), 12) collate "C"
        > lpad(to_hex(((extract(epoch from clock_timestamp()) + 86400) * 1000)::bigint), 12, '0') collate "C");
