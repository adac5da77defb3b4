"""Checks the promise after a row, once the system is quiet: the ledger by its own audit, the buyers' history against
the ledger, the stream by a consumer that keeps what it has seen, and that the last unit can be bought.

It asks the ledger, the stream and the mirror themselves, never through a proxy. What it buys is written down nowhere:
it is bought to see whether it can be.
"""

import asyncio
import hashlib
import itertools
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import asyncpg
import nats
from nats.js.api import AckPolicy, ConsumerConfig
from redis.asyncio import Redis

from bench.failure import ScenarioError
from bench.faults import mix
from bench.faults.history import Entry
from bench.faults.judging import Stored, judge
from bench.faults.record import Verdict
from bench.faults.site import ALL_WORKERS, DRAINED, Site
from persistence.journal import kept
from persistence.nats.stream import NAME
from persistence.postgres.audit import audit
from persistence.postgres.connect import connect

QUIET_S = 60.0
LAST_UNIT_S = 10.0
FETCH_EVENTS = 500
FETCH_S = 10.0
DURABLE = "faults-proof"
WINDOW_SHARE = 0.9  # of the stream's window of duplicates: its end is not exact
CANARIES = (mix.CANARY_NAME.encode(), mix.CANARY_NOTE.encode())
_ORDERS = "select external_id, order_id::text, status from orders where external_id like $1 || '-%'"
_CHANGES = """
select h.order_id::text || '.' || h.version from order_history h join orders o using (order_id)
where o.external_id like $1 || '-%'
"""
_KNOWN = "select order_id::text from orders where order_id = any($1::uuid[])"
_UNSOLD = """
select (select coalesce(sum(free), 0) from stock_shard where sku = $1)::bigint
    + (select coalesce(sum(units - used), 0) from stock_lease where sku = $1 and state = 'active')::bigint
"""
# A committer whose transaction outlives every time-out has been forgotten.
_FORGOTTEN = """
select count(*) from pg_stat_activity
where application_name like 'fg-commit:%' and xact_start < clock_timestamp() - interval '15 s'
"""
_OUTBOX = "select count(*) from outbox"
# What was sold of a lease beyond its units.
_BEYOND_LEASE = "select coalesce(sum(used - units), 0)::bigint from stock_lease where used > units"
_BEYOND_LIMIT = """
select o.customer_id, sum(l.quantity)::bigint from orders o join order_lines l using (order_id)
where l.sku = $1 and o.status not in ('cancelled', 'expired', 'refunded') group by 1 having sum(l.quantity) > $2
"""


class Came(NamedTuple):
    """An event that the stream has. `stored_s` is when it was stored, in seconds since 1970."""

    event_id: str
    payload: bytes
    stored_s: float = 0.0


class Checker:
    """One per site: the stream's consumer keeps what it has seen over all rows."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._seen: dict[str, tuple[str, float]] = {}  # id of an event -> digest of its bytes, when it was stored
        self._aside: set[Path] = set()  # what lay beside the journals at the end of the row before
        self._numbers = itertools.count(1)

    def check(
        self, run: str, entries: Sequence[Entry], spoilt: frozenset[str] = frozenset(), aside: tuple[str, ...] = ()
    ) -> Verdict:
        """The verdict on the row whose keys begin with `run`. Files with these endings may lie beside the journals."""
        verdict = Verdict()
        self._settle(verdict)
        for sku in mix.scarce_skus(run):
            self._sell_out(sku, verdict)
        self._settle(verdict)
        verdict.add(asyncio.run(self._books(run, entries, spoilt)))
        verdict.add(asyncio.run(self._stream(run)))
        verdict.found += self._in_logs() + asyncio.run(self._in_mirror())
        verdict.found += self._put_aside(aside)
        return verdict

    def _put_aside(self, aside: tuple[str, ...]) -> list[str]:
        """What has come to lie beside the journals, and may not."""
        before, self._aside = self._aside, set(kept(self._site.journals))
        new = sorted(self._aside - before)
        return [f"put aside: {path.name}" for path in new if not path.name.endswith(aside)]

    def _settle(self, verdict: Verdict) -> None:
        """Wait until all is delivered and every worker works."""
        try:
            self._site.until(lambda: self._site.query(_OUTBOX) == "0", "the outbox to be empty", QUIET_S)
            self._site.until(self._site.has_all_workers, ALL_WORKERS, QUIET_S)
            self._site.until(self._site.has_drained, DRAINED, QUIET_S)
        except ScenarioError as error:
            verdict.found.append(f"not quiet: {error}")

    def _sell_out(self, sku: str, verdict: Verdict) -> None:
        """Buy every unit that is left, and then one more."""
        unsold = int(self._site.query(_UNSOLD.replace("$1", f"'{sku}'")))
        # Who cannot buy one waits for long: after that nobody tries the others.
        missing = next((unsold - bought for bought in range(unsold) if not self._buy(sku)), 0)
        if missing:
            verdict.stranded += missing
            verdict.found.append(f"{missing} of {unsold} units of {sku} cannot be bought")
        if self._buy(sku):
            verdict.oversold += 1
            verdict.found.append(f"{sku} is sold out, and one more could be bought")

    def _buy(self, sku: str) -> bool:
        """Whether one unit could be bought; who is told to come back does so for LAST_UNIT_S."""
        wanted = mix.Wanted(f"proof-{sku}-{next(self._numbers)}", "faults-proof", ((sku, 1),))
        deadline = time.monotonic() + LAST_UNIT_S
        while True:
            answer = self._site.ask("POST", "/v1/orders", mix.document(wanted), {"Idempotency-Key": wanted.key})
            if answer.status == 201:
                return True
            if answer.status == 409 or time.monotonic() > deadline:
                return False
            time.sleep(0.1)

    async def _books(self, run: str, entries: Sequence[Entry], spoilt: frozenset[str]) -> Verdict:
        connection = await connect(self._site.postgres.url, "fg-faults", 60.0)
        try:
            rows = await connection.fetch(_ORDERS, run)
            forgotten = await connection.fetchval(_FORGOTTEN)
            beyond_leases = await connection.fetchval(_BEYOND_LEASE)
            beyond = await connection.fetch(_BEYOND_LIMIT, mix.LIMITED, mix.LIMIT_UNITS)
        finally:
            await connection.close()
        verdict = judge(entries, [Stored(*row) for row in rows], spoilt)
        if forgotten:
            verdict.hung += forgotten
            verdict.found.append(f"{forgotten} committers hang in their transactions")
        if beyond_leases:
            verdict.oversold += beyond_leases
            verdict.found.append(f"{beyond_leases} units were sold beyond what leases had")
        if beyond:
            verdict.oversold += sum(units - mix.LIMIT_UNITS for _, units in beyond)
            verdict.found.append(f"{len(beyond)} buyers have more of {mix.LIMITED} than they may")
        verdict.add(await self._audit())
        return verdict

    async def _audit(self) -> Verdict:
        verdict = Verdict()
        for finding in (await audit(self._site.postgres.url)).findings:
            if finding.count:
                verdict.found.append(f"audit: {finding.check}: {finding.count} off: {finding.off[:2]}")
            for row in finding.off:
                if finding.check == "stock_balances":
                    short = _units(row, "total", "owed") - _units(row, "free", "leased", "held")
                    verdict.stranded += max(short, 0)
                    verdict.oversold += max(-short, 0)
                elif finding.check == "not_oversold":
                    verdict.oversold += _units(row, "held") - _units(row, "stock")
        return verdict

    async def _stream(self, run: str) -> Verdict:
        """Every change of the row's orders is in the stream, and nothing else is."""
        came = await self._collect()
        verdict = self._keep(came, self._site.times.duplicate_window)
        connection = await connect(self._site.postgres.url, "fg-faults", 60.0)
        try:
            changes = {row[0] for row in await connection.fetch(_CHANGES, run)}
            unknown = await _unknown(connection, {one.event_id.partition(".")[0] for one in came})
        finally:
            await connection.close()
        missing = changes - self._seen.keys()
        if missing:
            verdict.lost += len(missing)
            verdict.found.append(f"{len(missing)} changes without an event: {sorted(missing)[:3]}")
        if unknown:
            verdict.doubled += len(unknown)
            verdict.found.append(f"events of {len(unknown)} orders that are not in the ledger: {sorted(unknown)[:3]}")
        return verdict

    def _keep(self, came: Sequence[Came], window_s: float) -> Verdict:
        """An event that comes again has to be the same, and is not stored twice while the stream still knows its id."""
        verdict = Verdict()
        for event_id, payload, stored_s in came:
            digest = hashlib.sha256(payload).hexdigest()
            before = self._seen.get(event_id)
            self._seen[event_id] = digest, stored_s
            if before is not None and before[0] != digest:
                verdict.doubled += 1
                verdict.found.append(f"two events with the id {event_id} differ")
            elif before is not None and before[1] < stored_s < before[1] + window_s * WINDOW_SHARE:
                verdict.doubled += 1
                verdict.found.append(f"the event {event_id} was stored twice within {stored_s - before[1]:.1f} s")
            if any(canary in payload for canary in CANARIES):
                verdict.found.append(f"personal data in the event {event_id}")
        return verdict

    async def _collect(self) -> list[Came]:
        """The events that came since the last time."""
        client = await nats.connect(self._site.nats.url)
        came: list[Came] = []
        try:
            config = ConsumerConfig(ack_policy=AckPolicy.EXPLICIT, max_ack_pending=2 * FETCH_EVENTS)
            subscription = await client.jetstream().pull_subscribe("orders.>", DURABLE, NAME, config)
            while True:
                with suppress(TimeoutError):
                    for message in await subscription.fetch(FETCH_EVENTS, FETCH_S / 10):
                        stored_s = message.metadata.timestamp.timestamp()
                        came.append(Came(str(json.loads(message.data)["id"]), message.data, stored_s))
                        await message.ack()
                    continue
                if not (await subscription.consumer_info()).num_pending:
                    await client.flush()
                    return came
        finally:
            await client.close()

    def _in_logs(self) -> list[str]:
        logs = self._site.folder.logs.glob("*")
        return [f"personal data in {log}" for log in logs if any(one in log.read_bytes() for one in CANARIES)]

    async def _in_mirror(self) -> list[str]:
        return [line for mirror in self._site.mirrors for line in await _canaries_in(mirror.url)]


async def _canaries_in(url: str) -> list[str]:
    found = []
    async with Redis.from_url(url) as client:
        async for key in client.scan_iter(count=1000):
            kind = await client.type(key)
            value = (
                await (client.hgetall(key) if kind == b"hash" else client.get(key))
                if kind in (b"hash", b"string")
                else key
            )
            if any(one in repr((key, value)).encode() for one in CANARIES):
                found.append(f"personal data in the mirror: {key!r}")
    return found


async def _unknown(connection: asyncpg.Connection, order_ids: set[str]) -> set[str]:
    """Those that the ledger has no order of."""
    known = await connection.fetch(_KNOWN, sorted(order_ids))
    return order_ids - {row[0] for row in known}


def _units(row: dict[str, object], *names: str) -> int:
    return sum(int(str(row[name])) for name in names)
