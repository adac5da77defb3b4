"""An open loop: orders are offered at instants that are fixed before the run, whether the gateway keeps up or not, and
an order's wait counts from its instant, also the part that it spends here because no connection is free. A generator
that waits for answers before it asks again omits what it did not ask meanwhile; this one omits nothing.

It promises that every order offered is accounted for, by what became of it, and that it says when it has fallen behind
itself: such a run says nothing about the gateway. It never sends an order twice.
"""

import asyncio
import gc
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.failure import ScenarioError

TICK_S = 0.0005
LATE_S = 0.010  # An order that the generator comes to later than this after its instant has met a slow generator.
LATE_SHARE_MAX = 0.01
PATIENCE_S = 5.0  # from an order's instant to its answer; the buyer leaves then
SWEEP_S = 0.1
CONNECT_S = 10.0
STARTS_IN_S = 0.2
ACCEPTED = "accepted"
NOT_SENT, NO_ANSWER, CUT = "not_sent", "no_answer", "connection_failed"  # beside the codes of refusals
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
CODE = re.compile(rb'"code":"([a-z_]+)"')
ORDER_ID = re.compile(rb'"order_id":"([0-9a-f-]{36})"')


class Target(NamedTuple):
    """Where the orders go, and what they are, as bytes before and after the key."""

    host: str
    port: int
    before_key: bytes
    after_key: bytes

    @classmethod
    def of(cls, url: str, token: str, body: bytes) -> "Target":
        """Orders of this body, each with a key of its own."""
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        head = (
            f"POST /v1/orders HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nIdempotency-Key: {secrets.token_hex(6)}-"
        )
        return cls(parts.hostname, parts.port, head.encode(), b"\r\n\r\n" + body)


class Told(NamedTuple):
    """What became of the orders of one load: how many by outcome; the waits of those accepted in seconds, from their
    instants, with their ids, and when their answers came (monotonic). `late` are those that the generator came to
    over LATE_S after their instant; `stopped_at` is when the last answer had come, or was given up.
    """

    offered: int
    outcomes: Counter[str]
    waits: list[float]
    ids: list[str]
    answered_at: list[float]
    late: int
    seconds: float
    started_at: float
    stopped_at: float

    @property
    def in_time(self) -> int:
        """Orders whose acceptance came before the load was over."""
        return sum(at <= self.started_at + self.seconds for at in self.answered_at)

    @property
    def late_share(self) -> float:
        return self.late / max(self.offered, 1)

    @property
    def unanswered(self) -> int:
        """Orders that may be in the ledger although nobody was told so."""
        return self.outcomes[NO_ANSWER] + self.outcomes[CUT]

    @property
    def void(self) -> str:
        """Why the load says nothing about the gateway, or nothing."""
        if self.late_share <= LATE_SHARE_MAX:
            return ""
        return f"the generator fell behind: it came late to {self.late_share:.1%} of the orders"


async def offer(target: Target, rate: float, seconds: float, connections: int) -> Told:
    """Offer `rate` orders a second for so long. Raises ScenarioError when the gateway cannot be reached."""
    total = int(rate * seconds)
    load = _Load(target)
    await load.connect(connections)
    try:
        with _undisturbed():
            start = load.start = time.monotonic() + STARTS_IN_S
            sweeping = asyncio.create_task(load.sweep())
            while load.offered < total:
                now = time.monotonic()
                for number in range(load.offered, min(total, int((now - start) * rate) + 1)):
                    load.offer(start + number / rate, now)
                await asyncio.sleep(TICK_S)
            await load.drain()
            sweeping.cancel()
    finally:
        load.close()
    return load.told(seconds)


async def saturate(target: Target, seconds: float, connections: int) -> Told:
    """A closed loop by the same hand: each connection sends its next order when it has its answer."""
    load = _Load(target)
    await load.connect(connections)
    try:
        with _undisturbed():
            load.start = time.monotonic()
            load.until = load.start + seconds
            sweeping = asyncio.create_task(load.sweep())
            for _ in range(connections):
                load.offer(time.monotonic(), time.monotonic())
            await asyncio.sleep(seconds)
            await load.drain()
            sweeping.cancel()
    finally:
        load.close()
    return load.told(seconds)


class _Load:
    """One load: its connections, those of them that are free, and the orders that wait for one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.start = 0.0
        self.until = 0.0  # how long an answer is followed by the next order
        self.offered = 0
        self.late = 0
        self.outcomes: Counter[str] = Counter()
        self.waits: list[float] = []
        self.ids: list[str] = []
        self.answered_at: list[float] = []
        self._free: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._waiting: deque[tuple[int, float]] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._closed = False

    async def connect(self, connections: int) -> None:
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.gather(*(self._connect() for _ in range(connections)))
        except (OSError, TimeoutError) as error:
            raise ScenarioError(f"{self.target.host}:{self.target.port} takes no connections: {error!r}") from error

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: _Connection(self), self.target.host, self.target.port)

    def offer(self, at: float, now: float) -> None:
        """An order whose instant is `at` is due."""
        number = self.offered
        self.offered += 1
        if now - at > LATE_S:
            self.late += 1
        if self._free:
            self._send(self._free.pop(), number, at)
        else:
            self._waiting.append((number, at))

    def ready(self, connection: "_Connection", now: float) -> None:
        """A connection has nothing to do: it takes the order that has waited longest, or the next one."""
        self._busy.discard(connection)
        if self._waiting:
            self._send(connection, *self._waiting.popleft())
            return
        self._free.append(connection)
        if now < self.until:
            self.offer(now, now)

    def lost(self, connection: "_Connection") -> None:
        """A connection has ended: another one comes in its place."""
        self._busy.discard(connection)
        if connection in self._free:
            self._free.remove(connection)
        if connection.at:
            self.outcomes[CUT] += 1
        if not self._closed:
            task = asyncio.create_task(self._connect_again())
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect_again(self) -> None:
        while not self._closed:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._connect()
            except (OSError, TimeoutError):
                await asyncio.sleep(SWEEP_S)
            else:
                return

    async def sweep(self) -> None:
        """Give up, again and again, what has waited for PATIENCE_S."""
        while True:
            await asyncio.sleep(SWEEP_S)
            before = time.monotonic() - PATIENCE_S
            while self._waiting and self._waiting[0][1] < before:
                self._waiting.popleft()
                self.outcomes[NOT_SENT] += 1
            for connection in [one for one in self._busy if one.at < before]:
                self.outcomes[NO_ANSWER] += 1
                self._busy.discard(connection)
                connection.abort()

    async def drain(self) -> None:
        """Wait until every order has come to its end, which `sweep` brings to the last ones."""
        while self._waiting or self._busy:  # noqa: ASYNC110 - an event would have to be set on the hot path
            await asyncio.sleep(SWEEP_S)

    def close(self) -> None:
        self._closed = True
        for task in self._connecting:
            task.cancel()
        for connection in (*self._free, *self._busy):
            connection.close()

    def told(self, seconds: float) -> Told:
        assert self.outcomes.total() == self.offered, "every order is accounted for"
        return Told(
            self.offered,
            self.outcomes,
            self.waits,
            self.ids,
            self.answered_at,
            self.late,
            seconds,
            self.start,
            max(self.answered_at, default=self.start),
        )

    def _send(self, connection: "_Connection", number: int, at: float) -> None:
        self._busy.add(connection)
        connection.send(number, at)


class _Connection(asyncio.Protocol):
    """One connection with at most one order under way, whose instant is `at`; 0 without one."""

    def __init__(self, load: _Load) -> None:
        self.at = 0.0
        self._load = load
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP gives this one
        self._transport = transport
        self._load.ready(self, time.monotonic())

    def send(self, number: int, at: float) -> None:
        self.at = at
        target = self._load.target
        self._transport.write(b"%b%d%b" % (target.before_key, number, target.after_key))

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        head = received.find(b"\r\n\r\n")
        length = LENGTH.search(received, 0, head) if head >= 0 else None
        if length is None or len(received) < head + 4 + int(length[1]):
            self._received = received
            return
        self._received = b""
        self._hear(received, head)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._load.lost(self)

    def abort(self) -> None:
        """Leave: what comes now is for nobody."""
        self.at = 0.0
        self._transport.abort()

    def close(self) -> None:
        self._transport.abort()

    def _hear(self, answer: bytes, head: int) -> None:
        load, now = self._load, time.monotonic()
        if answer[9:12] == b"201":
            order_id = ORDER_ID.search(answer, head)
            assert order_id, answer
            load.outcomes[ACCEPTED] += 1
            load.waits.append(now - self.at)
            load.ids.append(order_id[1].decode())
            load.answered_at.append(now)
        else:
            code = CODE.search(answer, head)
            load.outcomes[code[1].decode() if code else f"status_{answer[9:12].decode()}"] += 1
        self.at = 0.0
        load.ready(self, now)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without the pauses of the collector of garbage, of which a load makes none."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def percentile(waits: list[float], share: float) -> float:
    """In seconds; 0 of nothing."""
    return sorted(waits)[min(len(waits) - 1, int(len(waits) * share))] if waits else 0.0
