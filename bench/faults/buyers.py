"""The buyers, in a process of their own: they press at a constant rate, whether they are answered or not, and write
down what they do and hear before they do anything else.

Who hears nothing, or that he should come back, presses again with the same key until he knows, for as long as he has
patience. Some press again although they know; some cancel. Nothing of the system's is believed but its answers. The
process ends when its standard input does; then it waits for those who do not know yet.
"""

import asyncio
import hashlib
import itertools
import random
import sys
import time
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bench.faults.history import Entry, History, Kind, What
from bench.faults.mix import CANCELLED_SHARE, RETRIED_SHARE, Mix, Wanted

HUNG_S = 10.0
PATIENCE_S = 40.0  # after the last order: how long those who do not know go on asking
PAUSE_S = (0.05, 0.4)  # before the same is asked again
LATER_S = (0.0, 2.0)  # until an acknowledged order is asked for again, or cancelled
WAITING_MAX = 3000  # buyers at once; more are not let in, and counted
AGAIN = {"key_in_flight", "body_timeout", "rate_limited"}
FAILURES = (aiohttp.ClientError, OSError, asyncio.IncompleteReadError)


class Load(msgspec.Struct, frozen=True):
    """`rate` orders a second; `run` begins their keys."""

    url: str
    token: str
    run: str
    seed: int
    rate: float
    history: str


class Buyers:
    """One load. `press` runs until told to stop; `finish` until everybody knows."""

    def __init__(
        self, load: Load, history: History, steady: aiohttp.ClientSession, fresh: aiohttp.ClientSession
    ) -> None:
        self._load = load
        self._history = history
        self._steady = steady  # keeps its connections
        self._fresh = fresh  # a connection for each request: whichever worker takes it
        self._mix = Mix(load.run, load.seed)
        self._random = random.Random(f"{load.seed}/{load.run}")  # noqa: S311 - a workload is seeded
        self._tasks: set[asyncio.Task[None]] = set()
        self._give_up_at = float("inf")
        self.turned_away = 0

    async def press(self, stop: asyncio.Event) -> None:
        """An order at each instant of the rate. An instant that is missed is made good at once."""
        start = time.monotonic()
        for number in itertools.count(1):
            wait_s = start + number / self._load.rate - time.monotonic()
            if wait_s > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await stop.wait()
            if stop.is_set():
                return
            if len(self._tasks) < WAITING_MAX:
                self._start(self._buy(self._mix.next()))
            else:
                self.turned_away += 1

    async def finish(self) -> None:
        self._give_up_at = time.monotonic() + PATIENCE_S
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _buy(self, wanted: Wanted) -> None:
        last = await self._ask_until_known(wanted, 1, self._steady)
        if last.what not in ("ok", "receipt"):
            return
        what_next = self._random.random()
        if what_next < RETRIED_SHARE:
            await asyncio.sleep(self._random.uniform(*LATER_S))
            await self._ask_until_known(wanted, last.attempt + 1, self._fresh)
        elif what_next < RETRIED_SHARE + CANCELLED_SHARE and last.order_id:
            await asyncio.sleep(self._random.uniform(*LATER_S))
            await self._cancel(wanted, last.order_id)

    async def _ask_until_known(self, wanted: Wanted, attempt: int, session: aiohttp.ClientSession) -> Entry:
        while True:
            last = await self._ask(wanted, attempt, session)
            if is_known(last) or time.monotonic() > self._give_up_at:
                return last
            await asyncio.sleep(self._random.uniform(*PAUSE_S))
            attempt, session = attempt + 1, self._fresh

    async def _ask(self, wanted: Wanted, attempt: int, session: aiohttp.ClientSession) -> Entry:
        announced = Entry(time.monotonic(), "invoke", wanted.key, attempt, items=wanted.items, customer=wanted.customer)
        headers = {"Idempotency-Key": wanted.key}
        return await self._exchange(session, announced, "/v1/orders", wanted.body, headers)

    async def _cancel(self, wanted: Wanted, order_id: str) -> None:
        for attempt in itertools.count(1):
            announced = Entry(time.monotonic(), "invoke", wanted.key, attempt, "cancel", order_id=order_id)
            path, headers = f"/v1/orders/{order_id}/cancel", {"If-Match": '"1"'}
            last = await self._exchange(self._fresh, announced, path, b'{"reason":"faults"}', headers)
            if is_known(last) or time.monotonic() > self._give_up_at:
                return
            await asyncio.sleep(self._random.uniform(*PAUSE_S))

    async def _exchange(
        self, session: aiohttp.ClientSession, announced: Entry, path: str, body: bytes, headers: dict[str, str]
    ) -> Entry:
        await self._history.announce(announced)
        answer = await ask(session, self._load.url + path, body, headers, announced)
        self._history.note(answer)
        return answer


def is_known(entry: Entry) -> bool:
    """Whether the buyer knows what he wanted to know."""
    return entry.what in ("ok", "receipt") or (
        entry.what == "refused" and entry.status < 500 and entry.code not in AGAIN
    )


async def ask(
    session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str], announced: Entry
) -> Entry:
    """One request, and what is to be written down of its answer. `hung`: there was none within HUNG_S."""
    try:
        async with asyncio.timeout(HUNG_S), session.post(url, data=body, headers=headers) as response:
            return heard(announced, response.status, await response.read(), response.headers)
    except TimeoutError:
        return _told(announced, "hung")
    except FAILURES as error:
        return _told(announced, "unknown", code=type(error).__name__)


def heard(announced: Entry, status: int, body: bytes, headers: Any) -> Entry:
    """What an answer says."""
    digest = hashlib.sha256(body).hexdigest()[:16]
    if status in (200, 201):
        order_id = str(msgspec.json.decode(body)["order_id"])
        replayed = headers.get("Idempotency-Replayed") == "true"
        return _told(announced, "ok", status, order_id=order_id, digest=digest, replayed=replayed)
    if status == 202:
        return _told(announced, "receipt", status)
    return _told(announced, "refused", status, code=code_of(body))


def code_of(body: bytes) -> str:
    """Of a problem; nothing when it is none."""
    with suppress(msgspec.DecodeError):
        document = msgspec.json.decode(body)
        if isinstance(document, dict):
            return str(document.get("code", ""))
    return ""


def _told(
    announced: Entry,
    what: What,
    status: int = 0,
    code: str = "",
    order_id: str = "",
    digest: str = "",
    *,
    replayed: bool = False,
) -> Entry:
    kind: Kind = announced.kind
    return Entry(
        time.monotonic(),
        what,
        announced.key,
        announced.attempt,
        kind,
        status,
        code,
        order_id or announced.order_id,
        digest,
        replayed,
    )


def new_session(token: str, *, fresh: bool) -> aiohttp.ClientSession:
    """With a connection for each request if `fresh`."""
    return aiohttp.ClientSession(
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        connector=aiohttp.TCPConnector(limit=0, force_close=fresh),
        timeout=aiohttp.ClientTimeout(total=None),
    )


async def main() -> None:
    load = msgspec.json.decode(sys.stdin.buffer.readline(), type=Load)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), stop.set)
    history = History(Path(load.history))
    writing = asyncio.create_task(history.run())
    async with new_session(load.token, fresh=False) as steady, new_session(load.token, fresh=True) as fresh:
        buyers = Buyers(load, history, steady, fresh)
        await buyers.press(stop)
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        await buyers.finish()
    history.close()
    await writing
    sys.stdout.buffer.write(msgspec.json.encode({"turned_away": buyers.turned_away}))


if __name__ == "__main__":
    asyncio.run(main())
