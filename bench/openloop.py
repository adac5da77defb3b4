"""An open loop: orders are offered at instants that are fixed before the run, whether the gateway keeps up or not, and
an order's wait counts from its instant, also the part that it spends here because no connection is free. A generator
that waits for answers before it asks again omits what it did not ask meanwhile; this one omits nothing.

It promises that every order offered is accounted for, by what became of it, and that it says when it has fallen behind
itself: such a run says nothing about the gateway. It never sends an order twice. A process of its own does the work
(bench/openloop_process.py), pinned where the caller is, and nothing is left of it when the caller goes.
"""

import asyncio
import secrets
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from bench.failure import ScenarioError

LATE_S = 0.010  # An order that the generator comes to later than this after its instant has met a slow generator.
LATE_SHARE_MAX = 0.01
PATIENCE_S = 5.0  # from an order's instant to its answer; the buyer leaves then
CONNECT_S = 10.0
GRACE_S = 30.0  # for what is around a load: the start of the process, its answer
ACCEPTED = "accepted"
NOT_SENT, NO_ANSWER, CUT = "not_sent", "no_answer", "connection_failed"  # beside the codes of refusals
COMMAND = (sys.executable, "-P", "-m", "bench.openloop_process")


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


class Load(msgspec.Struct, frozen=True):
    """What the generator's process is told: `rate` orders a second, or as many as the connections take when it is 0;
    at first over `connections`, over up to `connections_max` when an order finds none free.
    """

    target: Target
    rate: float
    seconds: float
    connections: int
    connections_max: int
    patience_s: float


class Told(NamedTuple):
    """What became of the orders of one load: how many by outcome; the waits of those accepted in seconds, from their
    instants, with their ids, and when their answers came (monotonic). `late` are those that the generator came to
    over LATE_S after their instant; `stopped_at` is when the last order was accepted; `cpu_s` is the generator's own.
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
    cpu_s: float

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


async def offer(
    target: Target, rate: float, seconds: float, connections: int, connections_max: int | None = None
) -> Told:
    """Offer `rate` orders a second for so long. Buyers have a connection each: an order that finds none free opens
    another one, up to `connections_max`. Raises ScenarioError when the gateway cannot be reached.
    """
    return await _run(Load(target, rate, seconds, connections, connections_max or connections, PATIENCE_S))


async def saturate(target: Target, seconds: float, connections: int) -> Told:
    """A closed loop by the same hand: each connection sends its next order when it has its answer."""
    return await _run(Load(target, 0.0, seconds, connections, connections, PATIENCE_S))


async def _run(load: Load) -> Told:
    """The load by a process of its own, which ends with its standard input; that is with this process."""
    # In a session of its own, since the terminal's Ctrl-C is ours alone.
    process = await asyncio.create_subprocess_exec(
        *COMMAND, stdin=PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True
    )
    try:
        async with asyncio.timeout(load.seconds + load.patience_s + CONNECT_S + GRACE_S):
            return await _ask(process, load)
    except TimeoutError as error:
        raise ScenarioError("the generator did not end in time") from error
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _ask(process: Process, load: Load) -> Told:
    assert process.stdin
    assert process.stdout
    assert process.stderr
    with suppress(ConnectionError):  # It has ended; its complaint says why.
        process.stdin.write(msgspec.json.encode(load) + b"\n")
        await process.stdin.drain()
    answer = await process.stdout.read()
    if not answer:
        complaint = await process.stderr.read()
        raise ScenarioError(f"the generator has ended early: {complaint.decode(errors='replace').strip()}")
    told = msgspec.msgpack.decode(answer, type=Told | str, dec_hook=_counted)
    if isinstance(told, str):
        raise ScenarioError(told)
    return told


def _counted(kind: type, outcomes: Any) -> Any:
    assert kind == Counter[str]
    return Counter(outcomes)


def percentile(waits: list[float], share: float) -> float:
    """In seconds; 0 of nothing."""
    return sorted(waits)[min(len(waits) - 1, int(len(waits) * share))] if waits else 0.0
