"""What a SKU, a connection and a queued order take of a worker's memory: by how much it grows when there are many more
of them.

The growth is that of its anonymous resident memory, as the kernel counts it, so it holds what allocators keep besides.
Orders are made to queue by holding a lock that a commit needs, for a moment; every one of them is answered afterwards.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import uvloop

from bench import usage, workload
from bench.record import Run
from bench.scale import goods
from bench.scale.record import Part, Place, Series, faults_of
from bench.scale.systems import Systems
from bench.system import System
from persistence.postgres.connect import connect

SKUS = 20_000
CONNECTIONS = 2_000
ORDERS = 900  # below the orders of one commit: of a queue that holds more the gateway looks at the age
# So few at once that no commit tells the gateway how fast the ledger is: a queue that knows shortens itself.
CALLERS_WARM = 32
ORDERS_WARM = 40  # of each of those
SHARDS = 4  # of each SKU, as by default
REST_S = 1.0
ANSWER_TIMEOUT_S = 20.0
QUEUE_TIMEOUT_S = 4.0  # below the 5 s for which a commit waits for a lock
ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB", re.MULTILINE)
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
HOLD = "lock table idempotency_key in share row exclusive mode"
SKU, CONNECTION, QUEUED = "SKU in the catalogue", "connection", "queued order"
METHOD = f"""\
Each run has a system of its own with one worker, which has answered {CALLERS_WARM * ORDERS_WARM:,} orders before \
anything is read.
A figure is the growth of the worker's anonymous resident memory (RssAnon of /proc), divided by how many there were \
more. What the worker's allocators keep for later is in it, and what they had kept is used up first.
{SKU}: {SKUS:,} products with stock, known to the worker, of which none is sold.
{CONNECTION}: {CONNECTIONS:,} open ones, each of which has been answered once and is idle.
{QUEUED}: the canonical one, on {ORDERS:,} of these connections, while a lock keeps the ledger from committing. It \
holds the request, the rows, the event and the answer. All are answered when the lock is gone.\
"""


class Caller(asyncio.Protocol):
    """One connection, one question at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[int] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # TCP gives this one
        self.transport = transport

    def ask(self, request: bytes) -> asyncio.Future[int]:
        """The status of the answer, 0 when the connection is lost before."""
        assert self._answer is None or self._answer.done()
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if found and len(body) >= (int(length[1]) if length else 0):
            self._received = b""
            self._tell(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._tell(0)

    def _tell(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)


class Requests:
    """The bytes of requests for a system. Every order has a key of its own."""

    def __init__(self, system: System) -> None:
        self.host, _, port = system.url.removeprefix("http://").partition(":")
        self.port = int(port)
        self._head = (
            f"POST /v1/orders HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {system.token}\r\n"
            "Content-Type: application/json\r\n"
        )
        self._body = workload.body(customer_id=workload.new_customer())
        self.alive = f"GET /livez HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()
        self._number = 0

    def order(self) -> bytes:
        self._number += 1
        rest = f"Idempotency-Key: memory-{self._number}\r\nContent-Length: {len(self._body)}\r\n\r\n"
        return (self._head + rest).encode() + self._body


def part(systems: Systems, runs: int) -> Part:
    """The figures of `runs` fresh systems."""
    found: dict[str, list[Run]] = {SKU: [], CONNECTION: [], QUEUED: []}
    for at in range(1, runs + 1):
        with systems.fresh() as bench:
            for name, run in _measure(bench.system(1), at).items():
                found[name].append(run)
    series = [Series(name, [Place(1, made)]) for name, made in found.items()]
    faults = faults_of(series)
    return Part(
        title="Memory of a worker",
        method=METHOD.splitlines(),
        axis="bytes",
        unit="bytes",
        series=series,
        figures={one.name: one.places[0].median for one in series},
        findings=[] if faults else [f"{one.name}: {one.places[0].median / 1024:,.1f} KiB." for one in series],
        faults=faults,
    )


def _measure(system: System, at: int) -> dict[str, Run]:
    """One run of each."""
    (worker,) = usage.children_of(system.pids["worker"])
    requests = Requests(system)
    system.ensure_goods([workload.goods(workload.SKU)])
    uvloop.run(_warm(requests))
    before = _resident(worker)
    goods.load(system, [f"MEMORY-{number}" for number in range(SKUS)], SHARDS)
    grown = _growth(before, _resident(worker), SKUS, at)
    return {SKU: grown, **uvloop.run(_of_callers(system, requests, worker, at))}


async def _warm(requests: Requests) -> None:
    callers = await _open(requests, CALLERS_WARM)
    for _ in range(ORDERS_WARM):
        await _answers([caller.ask(requests.order()) for caller in callers])
    _close(callers)


async def _of_callers(system: System, requests: Requests, worker: int, at: int) -> dict[str, Run]:
    """Open connections first, then an order that waits on some."""
    before = _resident(worker)
    callers = await _open(requests, CONNECTIONS)
    await _answers([caller.ask(requests.alive) for caller in callers])
    opened = _resident(worker)
    async with _held(system.postgres_url):
        waiting = [caller.ask(requests.order()) for caller in callers[:ORDERS]]
        await _until_queued(system)
        queued = _resident(worker)
    told = await _answers(waiting)
    _close(callers)
    refused = ORDERS - told.count(HTTPStatus.CREATED)
    faults = [f"{refused} of {ORDERS} orders were refused"] if refused else []
    return {
        CONNECTION: _growth(before, opened, CONNECTIONS, at),
        QUEUED: _growth(opened, queued, ORDERS, at, faults),
    }


def _growth(before: int, after: int, count: int, at: int, faults: list[str] | None = None) -> Run:
    return Run(
        value=(after - before) / count,
        seconds=0.0,
        figures={"before_bytes": float(before), "after_bytes": float(after), "count": float(count)},
        faults=faults or [],
        round=at,
    )


def _resident(worker: int) -> int:
    """Bytes, once the worker has had time to finish what it was doing."""
    time.sleep(REST_S)
    found = ANONYMOUS.search(Path(f"/proc/{worker}/status").read_text())
    assert found, f"/proc/{worker}/status names no RssAnon"
    return int(found[1]) * 1024


async def _open(requests: Requests, count: int) -> list[Caller]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(Caller, requests.host, requests.port))[1] for _ in range(count)]


def _close(callers: list[Caller]) -> None:
    for caller in callers:
        caller.transport.close()


async def _answers(asked: list[asyncio.Future[int]]) -> list[int]:
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        return await asyncio.gather(*asked)


@asynccontextmanager
async def _held(url: str) -> AsyncIterator[None]:
    """Nothing is committed meanwhile."""
    connection = await connect(url, "fg-bench")
    try:
        async with connection.transaction():
            await connection.execute(HOLD)
            yield
    finally:
        await connection.close()


async def _until_queued(system: System) -> None:
    """Until the queue does not grow any more."""
    before, now = -1.0, 0.0
    async with asyncio.timeout(QUEUE_TIMEOUT_S):
        while now == 0 or now != before:
            await asyncio.sleep(0.2)
            metrics = await asyncio.to_thread(system.metrics)
            before, now = (
                now,
                sum(count for name, count in metrics.items() if name.startswith("floodgate_queue_orders")),
            )
