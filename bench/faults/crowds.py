"""What clients do wrong to the edge, and what a mirror may forget: faults that are made by talking, not by breaking.

The clients of this file write down what they do as the buyers do; their keys begin like those of the row.
"""

import asyncio
import itertools
import math
import random
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from redis.asyncio import Redis

from bench.faults.buyers import HUNG_S, ask, is_known, new_session
from bench.faults.faults import BrokenError, Fault
from bench.faults.history import Entry, History
from bench.faults.mix import PLENTY, Mix, Wanted
from bench.faults.site import Site
from deploy.local import process_table

STAMPEDE = 50
OTHERS = 5
VANISH = 500
VANISH_SENT = 20  # of those: the whole request, so that there may be an order
SLOW = 200
FLOOD = 600
SLOW_S = 2.0
PROBES = 60
PROBE_S_MAX = 1.0
HOSTILE = 500
KNOWN_S = 30.0
DESCRIPTORS_MORE_MAX = 40
DESCRIPTORS_S = 20.0
FORGOTTEN_S = 0.7
RST_ON_CLOSE = struct.pack("ii", 1, 0)


class Client:
    """A client beside the buyers. Each piece of work has a loop of its own, and is over when it returns."""

    def __init__(self, site: Site, run: str, seed: int, history: Path) -> None:
        self.site = site
        self._mix = Mix(f"{run}", seed)
        self._run = run
        self._numbers = itertools.count(1)
        self._history = history

    def next(self) -> Wanted:
        """An order of the mix, with a key that the buyers do not use."""
        wanted = self._mix.next()
        return wanted._replace(key=f"{self._run}-client-{next(self._numbers)}")

    def work(self, job: Callable[["Hand"], Awaitable[None]]) -> None:
        asyncio.run(self._work(job))

    async def _work(self, job: Callable[["Hand"], Awaitable[None]]) -> None:
        history = History(self._history)
        writing = asyncio.create_task(history.run())
        try:
            async with new_session(self.site.token, fresh=True) as session:
                await job(Hand(self, history, session))
        finally:
            history.close()
            await writing


class Hand:
    """A client at work."""

    def __init__(self, client: Client, history: History, session: aiohttp.ClientSession) -> None:
        self.client = client
        self._history = history
        self._session = session
        self._numbers = itertools.count(1)

    async def order(self, wanted: Wanted, attempt: int, key: str = "") -> Entry:
        """One attempt; with a `key`, that of another order, whose body it is not."""
        announced = await self.announce(wanted, attempt, key)
        url = f"{self.client.site.url}/v1/orders"
        entry = await ask(self._session, url, wanted.body, {"Idempotency-Key": announced.key}, announced)
        self._history.note(entry)
        return entry

    async def announce(self, wanted: Wanted, attempt: int, key: str = "") -> Entry:
        announced = Entry(
            time.monotonic(),
            "invoke",
            key or wanted.key,
            attempt,
            "other" if key else "order",
            items=wanted.items,
            customer=wanted.customer,
        )
        await self._history.announce(announced)
        return announced

    async def post(self, body: bytes) -> int:
        """Send something that is no order; the status of the answer, 0 without one."""
        headers = {"Idempotency-Key": f"hostile-{next(self._numbers)}"}
        url = f"{self.client.site.url}/v1/orders"
        try:
            async with asyncio.timeout(HUNG_S), self._session.post(url, data=body, headers=headers) as answer:
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0

    async def until_known(self, wanted: Wanted, attempt: int) -> None:
        deadline = time.monotonic() + KNOWN_S
        while not is_known(await self.order(wanted, attempt)) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            attempt += 1


async def stampede(hand: Hand) -> None:
    """One key, many times at once, over connections of their own; and the same key with other bodies."""
    wanted = hand.client.next()._replace(items=((PLENTY, 1),))
    different = hand.client.next()._replace(items=((PLENTY, 2),))
    presses = [hand.order(wanted, attempt) for attempt in range(1, STAMPEDE + 1)]
    await asyncio.gather(*presses)
    await hand.until_known(wanted, STAMPEDE + 1)
    await asyncio.gather(*(hand.order(different, attempt, wanted.key) for attempt in range(1, OTHERS + 1)))


async def hostile(hand: Hand) -> None:
    """Bodies that no order can be. Each has to be refused as the client's fault."""
    site, pick = hand.client.site, random.Random(hand.client.next().key)  # noqa: S311 - a workload is seeded
    statuses = await asyncio.gather(*(hand.post(_hostile_body(pick)) for _ in range(HOSTILE)))
    wrong = [status for status in statuses if not 400 <= status < 500]
    if wrong:
        raise BrokenError(f"hostile bodies were answered with {sorted(set(wrong))} by {site.url}")


class Vanished(Fault):
    """Clients that reset their connection in the middle of a request, or without reading the answer. Nothing of them
    may stay in a worker.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._site = client.site
        self._before = 0

    def inject(self) -> None:
        self._before = _descriptors(self._site)
        self._client.work(_vanish)

    def undo(self) -> None:
        deadline = time.monotonic() + DESCRIPTORS_S
        while (now := _descriptors(self._site)) > self._before + DESCRIPTORS_MORE_MAX:
            if time.monotonic() > deadline:
                raise BrokenError(f"the workers had {self._before} descriptors open, and have {now}")
            time.sleep(0.1)


class Slow(Fault):
    """Slow bodies, slow headers, or a flood of connections; good orders have to be answered meanwhile."""

    def __init__(self, client: Client, kind: str) -> None:
        self._client = client
        self._kind = kind

    def inject(self) -> None:
        self._client.work(self._press)

    async def _press(self, hand: Hand) -> None:
        host, port = _address(self._client.site)
        head = _head(self._client.site, "slow", 1000)
        first = {"bodies": head, "headers": head[: len(head) // 2], "flood": b""}[self._kind]
        count = FLOOD if self._kind == "flood" else SLOW
        writers = [(await asyncio.open_connection(host, port))[1] for _ in range(count)]
        for writer in writers:
            writer.write(first)
        dripping = asyncio.create_task(_drip(writers if first else ()))
        try:
            waits = [await _probe(hand) for _ in range(PROBES)]
        finally:
            dripping.cancel()
            for writer in writers:
                writer.transport.abort()
        worst = sorted(waits)[math.ceil(len(waits) * 0.99) - 1]
        if worst > PROBE_S_MAX:
            raise BrokenError(f"good orders waited {worst:.2f} s (p99) beside {count} {self._kind}")


class Forgotten(Fault):
    """The mirror forgets what it heard in the last moments, and whoever is connected is thrown out: so it is when a
    replica takes over that had not heard of it.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    def inject(self) -> None:
        asyncio.run(self._forget())

    async def _forget(self) -> None:
        async with Redis.from_url(self._site.valkey.url) as client:
            kept = {key: await client.dump(key) async for key in client.scan_iter(count=1000)}
            await asyncio.sleep(FORGOTTEN_S)
            for key, value in kept.items():
                if value is not None:
                    await client.restore(key, 5000, value, replace=True)
        self._site.links.reset("worker-redis")
        self._site.links.reset("steward-redis")


async def _vanish(hand: Hand) -> None:
    site = hand.client.site
    sent = [hand.client.next() for _ in range(VANISH_SENT)]
    for wanted in sent:
        await hand.announce(wanted, 1)
        await _throw(site, _head(site, wanted.key, len(wanted.body)) + wanted.body)
    head = _head(site, "vanished", 1000)
    for number in range(VANISH - VANISH_SENT):
        await _throw(site, (head + b'{"channel":')[: 1 + number % (len(head) + 10)])
    for wanted in sent:
        await hand.until_known(wanted, 2)


async def _throw(site: Site, data: bytes) -> None:
    """Send this, and reset the connection."""
    with suppress(OSError):
        _, writer = await asyncio.open_connection(*_address(site))
        writer.write(data)
        await writer.drain()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        writer.transport.abort()
        await asyncio.sleep(0)


async def _drip(writers: Sequence[asyncio.StreamWriter]) -> None:
    while True:
        await asyncio.sleep(SLOW_S / 4)
        for writer in writers:
            with suppress(OSError):
                writer.write(b" ")


async def _probe(hand: Hand) -> float:
    """How long a good order waited for its answer, whatever that was."""
    started = time.monotonic()
    wanted = hand.client.next()
    entry = await hand.order(wanted, 1)
    waited = time.monotonic() - started
    if not is_known(entry):
        await hand.until_known(wanted, 2)
    return waited


def _hostile_body(pick: random.Random) -> bytes:
    """Something that is no order, by construction."""
    depth = pick.randint(1_000, 30_000)
    number = "9" * pick.randint(20, 5000)
    bodies: tuple[Any, ...] = (
        b'{"a":' * depth,
        b"[" * depth + b"]" * depth,
        b'{"channel":"app","currency":"CNY","items":[{"sku":"\xff\xfe","quantity":1}]}',
        f'{{"channel":"app","currency":"CNY","items":[{{"sku":"A","quantity":{number}}}]}}'.encode(),
        b'{"channel":"app","currency":"CNY","items":[{"sku":"A","quantity":NaN}]}',
        b'{"channel":"app","currency":"CNY","items":[{"sku":"A\\u0000","quantity":1}]}',
        b'{"channel":"app","currency":"CNY","items":[{"sku":"\\ud800","quantity":1}]}',
        b"\xef\xbb\xbf{}",
        b'{"channel":"app"}' + bytes(pick.randbytes(pick.randint(1, 2000))),
        b'{"channel":' + bytes(pick.randbytes(pick.randint(1, 2000))),
        b'{"items":{"deep":' + b'{"deep":' * depth + b"1" + b"}" * depth + b"}}",
        b"null",
        b"",
    )
    return bytes(pick.choice(bodies))


def _head(site: Site, key: str, length: int) -> bytes:
    return (
        f"POST /v1/orders HTTP/1.1\r\nHost: {urlsplit(site.url).netloc}\r\nAuthorization: Bearer {site.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\nIdempotency-Key: {key}\r\n\r\n"
    ).encode()


def _address(site: Site) -> tuple[str, int]:
    parts = urlsplit(site.url)
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


def _descriptors(site: Site) -> int:
    return sum(len(process_table.open_files(pid)) for pid in site.workers())
