"""Writes into a restored ledger what the streams know and it does not: versions of orders, with their units, limits and
keys, and how far the versions of stock levels and products have come.

Each call is one transaction and may be repeated: what is there already is left alone. Nothing here may run while
somebody sells, and each page of orders refuses to when it finds one who does.
"""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import asyncpg
from asyncpg.pgproto.pgproto import UUID

from persistence.postgres.ledger import COLUMNS
from persistence.postgres.revisions import RAISE

RECOVERY_LOCK = 0x464C4F4F46  # the advisory lock of recoveries
_MOVING = ("status", "version", "paid_reference", "paid_at", "expires_at")  # columns that a later version may change
ENDED = ("cancelled", "expired", "refunded")  # orders that hold no units

# Somebody's connections, or somebody's heartbeat: a gateway that has just lost its connection still has the latter.
_RUNNING = """
select distinct case when application_name like 'fg-steward-%' then 'a steward' else 'a gateway' end
    || ' is connected from ' || coalesce(host(client_addr), 'the server itself') as who
from pg_stat_activity where datname = current_database()
    and (application_name like 'fg-commit:%' or application_name like 'fg-steward-%' or application_name = 'fg-control')
union all
select 'owner ' || owner || ' on ' || host || ' (pid ' || pid || ') was alive '
    || extract(epoch from clock_timestamp() - seen_at)::numeric(9, 1) || ' s ago'
from worker where state = 'alive' and seen_at > clock_timestamp() - make_interval(secs => $1)
"""
_BURY = "update worker set state = 'dead' where state = 'alive' and journal is null"
_CLOSE = """
select sum(stock_close(0, o.owner))::bigint from (
    select distinct l.owner from stock_lease l left join worker w on w.owner = l.owner
    where l.state = 'active' and (w.owner is null or w.state <> 'alive' and w.journal is null) order by 1) o
"""
# The backup of keys is younger than that of orders, where they are two.
_KEYS_OF_NOTHING = """
delete from order_key k where not exists (
    select from orders o where o.order_id = k.order_id and o.personal is not null)
"""
_ALIVE = "select owner::text from worker where state = 'alive' and journal is null limit 1"
_NEWEST = "select order_id from orders order by order_id desc limit 1"
_KNOWN = "select order_id, version, status from orders where order_id = any($1) order by order_id for no key update"
_HELD = """
select o.customer_id as customer, stock_key(o.sale_id, l.sku) as key,
    coalesce(sum(l.quantity) filter (where l.stocked), 0)::bigint as stocked,
    coalesce(sum(l.quantity) filter (where l.limited), 0)::bigint as limited
from orders o join order_lines l using (order_id) where o.order_id = any($1) group by 1, 2
"""
_ADVANCE = """
update orders o set status = t.status, version = t.version, paid_reference = t.paid_reference, paid_at = t.paid_at,
    expires_at = t.expires_at
from unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::timestamptz[], $6::timestamptz[])
    t(order_id, status, version, paid_reference, paid_at, expires_at)
where o.order_id = t.order_id and o.order_id = any($1)
"""
_KEYS = """
insert into idempotency_key (key_hash, order_id, fingerprint)
select * from unnest($1::uuid[], $2::uuid[], $3::uuid[]) t(key_hash, order_id, fingerprint) order by 1
on conflict do nothing
"""
# Two statements: a row of an INSERT is checked before its conflict is seen, and units that come back are below 0.
_BUYERS = """
insert into buyer_taken (sku, customer, taken)
select sku, customer, 0 from unnest($1::text[], $2::text[]) t(sku, customer) order by sku, customer
on conflict do nothing
"""
_LIMITS = """
update buyer_taken b set taken = b.taken + t.units
from unnest($1::text[], $2::text[], $3::bigint[]) t(sku, customer, units)
where b.sku = t.sku and b.customer = t.customer
"""
_STOCKED = """
select t.sku from unnest($1::text[]) t(sku) left join product p on p.sku = t.sku where coalesce(p.stocked, true)
"""
_CLIENT = """
insert into api_client (client_id, name, scopes, channels) overriding system value
select $1, $2, '{}', '{}' where not exists (select from api_client where client_id = $1)
on conflict do nothing returning client_id
"""
_CLIENT_ANEW = "insert into api_client (name, scopes, channels) values ($1, '{}', '{}') returning client_id"
_CLIENT_IDS = """
select setval(pg_get_serial_sequence('api_client', 'client_id'), (select max(client_id) from api_client))
"""
_LEVELS = """
with raised as (
    insert into stock_level as l (sku, version, level)
    select * from unnest($1::text[], $2::bigint[], $3::text[]) t(sku, version, level) order by sku
    on conflict (sku) do update set version = excluded.version, level = excluded.level
    where l.version < excluded.version returning sku),
watched as (
    insert into stock_watch (sku) select sku from raised join stock_sku using (sku) order by 1 on conflict do nothing)
select count(*) from raised
"""
_PRODUCTS = """
insert into product as p (sku, version, title, price, currency, stocked, active, limit_units, revision)
select t.*, $9 from unnest($1::text[], $2::int[], $3::text[], $4::bigint[], $5::text[], $6::bool[], $7::bool[],
    $8::bigint[]) t(sku, version, title, price, currency, stocked, active, limit_units) order by sku
on conflict (sku) do update set version = excluded.version, title = excluded.title, price = excluded.price,
    currency = excluded.currency, stocked = excluded.stocked, active = excluded.active,
    limit_units = excluded.limit_units, revision = excluded.revision, updated_at = clock_timestamp()
where p.version < excluded.version returning sku, version
"""
# The stream has these events: it is where the products came from.
_TOLD = """
delete from product_event e using unnest($1::text[], $2::int[]) t(sku, version)
where e.sku = t.sku and e.version = t.version and e.sku = any($1)
"""

_SALES = """
select distinct o.sale_id from orders o left join sale s using (sale_id)
where o.sale_id is not null and s.sale_id is null order by 1 limit 100
"""


class StillRunningError(Exception):
    """Somebody sells, or keeps house; the message names them."""


class Version(NamedTuple):
    """A version of an order, as its event tells it. `order`, `lines` and `history` are rows by column, without the
    client's id and, in lines, perhaps without `stocked` and `limited`.
    """

    order_id: bytes
    number: int
    order: dict[str, Any]
    lines: list[dict[str, Any]]
    history: dict[str, Any]
    client: str  # its name; empty when somebody else placed the order
    client_id: int | None
    key: tuple[bytes, bytes] | None  # hash and fingerprint


@dataclass
class Done:
    """What has been written. `known` versions were there; `keys_taken` belong to other orders by now; `owed` counts
    units by stock key, in the end of those that were sold and are not there; `clients` are (name, id) of those that
    came back without scopes and tokens.
    """

    orders: int = 0
    changes: int = 0
    known: int = 0
    lines: int = 0
    units_held: int = 0
    units_released: int = 0
    keys: int = 0
    keys_taken: int = 0
    orders_without_key: int = 0
    orders_guessed: int = 0
    owed: Counter[str] = field(default_factory=Counter)
    clients: list[tuple[str, int]] = field(default_factory=list)


async def running(connection: asyncpg.Connection, timeout_s: float) -> list[str]:
    """Who works on the ledger now: gateways and stewards that are connected, owners that were alive within the
    time-out.
    """
    return [row["who"] for row in await connection.fetch(_RUNNING, timeout_s)]


async def is_alone(connection: asyncpg.Connection) -> bool:
    """Whether this is the only recovery; it stays so until the connection ends."""
    return bool(await connection.fetchval("select pg_try_advisory_lock($1)", RECOVERY_LOCK))


async def newest_ms(connection: asyncpg.Connection) -> int | None:
    """When the newest order was placed, in milliseconds since 1970."""
    newest = await connection.fetchval(_NEWEST)
    return None if newest is None else placed_ms(newest.bytes)


def placed_ms(order_id: bytes) -> int:
    """When an order was placed, in milliseconds since 1970."""
    return int.from_bytes(order_id[:6], "big")


async def close_leases(connection: asyncpg.Connection) -> int:
    """Give back what the owners of the backup hold, none of which lives. Returns the units."""
    async with connection.transaction():
        await connection.execute(_BURY)
        return await connection.fetchval(_CLOSE) or 0


async def drop_keys_of_nothing(connection: asyncpg.Connection) -> int:
    """Remove the keys of personal data that the ledger does not have, and no stream brings back. Returns how many."""
    return int((await connection.execute(_KEYS_OF_NOTHING)).rpartition(" ")[2])


async def apply(connection: asyncpg.Connection, versions: Sequence[Version], done: Done) -> list[Version]:
    """Write what is missing of these, and count it in `done`. Returns the versions that have to wait, because one
    before them is neither in the ledger nor here. Raises StillRunningError.
    """
    async with connection.transaction():
        if owner := await connection.fetchval(_ALIVE):
            raise StillRunningError(f"owner {owner} has come to life meanwhile")
        await connection.execute("set local floodgate.recovering = 'on'")  # An order may go several versions at once.
        ids = [UUID(order_id) for order_id in sorted({version.order_id for version in versions})]
        known = {row["order_id"].bytes: row for row in await connection.fetch(_KNOWN, ids)}
        chains, waiting = _chains(versions, {order_id: row["version"] for order_id, row in known.items()}, done)
        fresh = {order_id: chain for order_id, chain in chains.items() if order_id not in known}
        further = {order_id: chain for order_id, chain in chains.items() if order_id in known}
        await _fill_in(connection, fresh, done)
        await _write_keys(connection, fresh, done)
        ended = [i for i, c in further.items() if known[i]["status"] not in ENDED and c[-1].order["status"] in ENDED]
        await _move(connection, await _demand(connection, fresh, ended), done)
        await _write_rows(connection, fresh, further, done)
        done.orders += len(fresh)
        done.changes += sum(map(len, chains.values())) - len(fresh)
    return waiting


async def missing_sales(connection: asyncpg.Connection) -> list[str]:
    """Sales that orders name and the ledger does not know, at most 100."""
    return [row["sale_id"] for row in await connection.fetch(_SALES)]


async def apply_levels(connection: asyncpg.Connection, levels: Sequence[tuple[str, int, str]]) -> int:
    """(stock key, version, level) as they were told last. Returns how many the ledger was behind with: from now on
    their events get numbers that the stream has not had, and what consumers believe is what the next change starts
    from.
    """
    columns = [list(column) for column in zip(*levels, strict=True)]
    return int(await connection.fetchval(_LEVELS, *columns)) if levels else 0


async def apply_products(connection: asyncpg.Connection, products: Sequence[tuple[Any, ...]]) -> int:
    """(SKU, version, title, price, currency, stocked, active, limit) as they were told last. Returns how many the
    ledger was behind with.
    """
    if not products:
        return 0
    async with connection.transaction():
        revision = await connection.fetchval(RAISE, "catalogue")
        columns = [list(column) for column in zip(*products, strict=True)]
        newer = await connection.fetch(_PRODUCTS, *columns, revision)
        await connection.execute(_TOLD, [row["sku"] for row in newer], [row["version"] for row in newer])
    return len(newer)


def _chains(
    versions: Iterable[Version], known: dict[bytes, int], done: Done
) -> tuple[dict[bytes, list[Version]], list[Version]]:
    """What follows without a gap on what is known, by order, and what does not."""
    chains: dict[bytes, list[Version]] = defaultdict(list)
    waiting = []
    last = dict(known)
    for version in sorted(versions, key=lambda version: (version.order_id, version.number)):
        have = last.get(version.order_id, 0)
        if version.number <= have:
            done.known += 1
        elif version.number == have + 1:
            chains[version.order_id].append(version)
            last[version.order_id] = version.number
        else:
            waiting.append(version)
    return chains, waiting


async def _fill_in(connection: asyncpg.Connection, fresh: dict[bytes, list[Version]], done: Done) -> None:
    """What events of earlier releases do not say of an order: its client's id, and which lines hold units. A line of a
    product that nobody knows is taken to hold some: they are owed then, and somebody looks.
    """
    firsts = [chain[0] for chain in fresh.values()]
    clients = sorted({(first.client, first.client_id or 0) for first in firsts})
    ids = {name: await _client_id(connection, name, told, done) for name, told in clients}
    guessed = [first for first in firsts if any("stocked" not in line for line in first.lines)]
    skus = sorted({line["sku"] for first in guessed for line in first.lines})
    stocked = {row["sku"] for row in await connection.fetch(_STOCKED, skus)} if skus else set()
    for first in firsts:
        first.order["client_id"] = ids[first.client]
        for line in first.lines:
            line.setdefault("stocked", first.order["sale_id"] is not None or line["sku"] in stocked)
            line.setdefault("limited", False)
    done.orders_guessed += len(guessed)


async def _client_id(connection: asyncpg.Connection, name: str, told: int, done: Done) -> int:
    """The client's id in this ledger. One that is missing comes back under its old id, if nobody has that, and may do
    nothing until somebody grants it something.
    """
    found = await connection.fetchval("select client_id from api_client where name = $1", name) if name else told
    if found is None:
        found = await connection.fetchval(_CLIENT, told, name) if told else None
        await connection.fetchval(_CLIENT_IDS)
        found = found or await connection.fetchval(_CLIENT_ANEW, name)
        done.clients.append((name, found))
    return int(found)


async def _write_keys(connection: asyncpg.Connection, fresh: dict[bytes, list[Version]], done: Done) -> None:
    keys = [(chain[0].key, order_id) for order_id, chain in fresh.items()]
    rows = [(UUID(key[0]), UUID(order_id), UUID(key[1])) for key, order_id in keys if key is not None]
    if rows:
        tag = await connection.execute(_KEYS, *map(list, zip(*rows, strict=True)))
        written = int(tag.rpartition(" ")[2])
        done.keys += written
        done.keys_taken += len(rows) - written
    done.orders_without_key += len(fresh) - len(rows)


class _Demand(NamedTuple):
    """Units by stock key, and by stock key and customer; below 0 they come back."""

    units: Counter[str]
    taken: Counter[tuple[str, str]]


async def _demand(connection: asyncpg.Connection, fresh: dict[bytes, list[Version]], ended: Sequence[bytes]) -> _Demand:
    demand = _Demand(Counter(), Counter())
    for first, last in ((chain[0], chain[-1]) for chain in fresh.values()):
        if last.order["status"] in ENDED:
            continue
        for line in first.lines:
            key = _stock_key(first.order["sale_id"], line["sku"])
            demand.units[key] += line["quantity"] * line["stocked"]
            demand.taken[key, first.order["customer_id"]] += line["quantity"] * line["limited"]
    for row in await connection.fetch(_HELD, [UUID(order_id) for order_id in sorted(ended)]) if ended else ():
        demand.units[row["key"]] -= row["stocked"]
        demand.taken[row["key"], row["customer"]] -= row["limited"]
    return demand


async def _move(connection: asyncpg.Connection, demand: _Demand, done: Done) -> None:
    """Limits first, then shards, as everywhere."""
    taken = [(key, customer, units) for (key, customer), units in demand.taken.items() if units]
    if taken:
        keys, customers, counts = map(list, zip(*taken, strict=True))
        await connection.execute(_BUYERS, keys, customers)
        await connection.execute(_LIMITS, keys, customers, counts)
    units = {key: moved for key, moved in demand.units.items() if moved}
    rows = await connection.fetch("select sku, owed from stock_recover($1, $2)", list(units), list(units.values()))
    for row in rows:
        done.owed[row["sku"]] += row["owed"]
    done.units_held += sum(moved for moved in units.values() if moved > 0)
    done.units_released -= sum(moved for moved in units.values() if moved < 0)


async def _write_rows(
    connection: asyncpg.Connection,
    fresh: dict[bytes, list[Version]],
    further: dict[bytes, list[Version]],
    done: Done,
) -> None:
    orders = []
    for chain in fresh.values():
        last = {name: chain[-1].order[name] for name in _MOVING}
        orders.append(chain[0].order | last | {"personal": None})
    await _copy(connection, "orders", orders)
    lines = [line for chain in fresh.values() for line in chain[0].lines]
    await _copy(connection, "order_lines", lines)
    done.lines += len(lines)
    everything = [*fresh.values(), *further.values()]
    await _copy(connection, "order_history", [version.history for chain in everything for version in chain])
    if further:
        newest = [chain[-1].order for chain in further.values()]
        await connection.execute(_ADVANCE, *([order[name] for order in newest] for name in ("order_id", *_MOVING)))


async def _copy(connection: asyncpg.Connection, table: str, rows: Sequence[dict[str, Any]]) -> None:
    columns = COLUMNS[table]
    records = [[row[column] for column in columns] for row in rows]
    await connection.copy_records_to_table(table, records=records, columns=columns)


def _stock_key(sale_id: str | None, sku: str) -> str:
    """As the SQL function of that name."""
    return sku if sale_id is None else f"{sale_id}\x1f{sku}"


def instant(ms: int | None) -> dt.datetime | None:
    """A time as the driver takes it, exact."""
    return None if ms is None else dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ms)
