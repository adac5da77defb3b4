"""Requests over real connections to a real gateway: line, path, query, headers, framing, and bodies that a real ledger
gets to see, too.

Checked of each: an answer that is HTTP and no 500, or a closed connection, in time; that a problem is one of the
registry. And in the end: that the workers are those that they were, that nobody has logged what he did not expect, and
that an order is still taken.
"""

import asyncio
import json
import re
import secrets
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

import msgspec
from hypothesis import strategies as st

from bench.faults.site import GATEWAY, Site
from bench.faults.times import SCALED
from core_ext.codes import PROBLEMS
from deploy.local.edge import request
from tests.fuzz.memory import MIB
from tests.fuzz.requests import ORDER, SKU, TOKEN, requests
from tests.fuzz.target import Answer, FindingError, Target

PATIENCE_S = 0.1  # for an answer, before the client says that it has no more to say
HUNG_S = 10.0  # what waits so long is not answered
LOOK_AGAIN_S = 0.05
RECEIVED_BYTES_MAX = 4 << 20
UNEXPECTED = ("request_failed", "Traceback", "panicked", "task_failed")
PRODUCT = {"title": "Goods", "price": 100, "currency": "CNY", "stocked": False}
ABORTED = struct.pack("ii", 1, 0)  # SO_LINGER: a closed connection is forgotten, else its port is kept for a minute
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) ?[^\r\n]*\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked\r\n", re.IGNORECASE)
_PROBLEM = re.compile(rb"\r\ncontent-type: *application/problem\+json\r\n", re.IGNORECASE)


class Sent(msgspec.Struct, array_like=True):
    """What is sent over a connection of its own."""

    raw: bytes


class Gateway(NamedTuple):
    """A running one, with a client of every scope."""

    url: str
    token: str
    workers: Callable[[], Sequence[int]]
    log: Callable[[], str]


class HeadersTarget(Target[Sent]):
    """See above. `gateway` is one of the caller's; without it a system of its own is started."""

    name: ClassVar[str] = "headers"
    shape = Sent
    batch: ClassVar[int] = 32  # at once
    growth_bytes_max: ClassVar[int] = 96 * MIB  # of two workers, whose caches fill

    def __init__(self, gateway: Gateway | None = None) -> None:
        self._site = _open_site() if gateway is None else None
        self._gateway = gateway or _gateway_of(self._site)
        self._address = urlsplit(self._gateway.url)
        put = request(self._gateway.url, "PUT", f"/v1/products/{SKU}", token=self._gateway.token, body=PRODUCT)
        assert put.status in (200, 201), put.text
        self._ensure_ordered()
        self._workers = sorted(self._gateway.workers())
        self._loop = asyncio.new_event_loop()

    def inputs(self) -> st.SearchStrategy[Sent]:
        return st.builds(Sent, requests())

    def check(self, batch: Sequence[Sent]) -> list[Answer]:
        return self._loop.run_until_complete(self._check(batch))

    def pids(self) -> list[int]:
        return list(self._gateway.workers())

    def finish(self) -> None:
        if sorted(self._gateway.workers()) != self._workers:
            raise FindingError("the workers are not those that they were: one has ended", "crash")
        said = self._gateway.log()
        for word in UNEXPECTED:
            if word in said:
                raise FindingError(f"the log has `{word}`: {said[max(said.index(word) - 200, 0) :][:1500]}")
        self._order("after")

    def close(self) -> None:
        self._loop.close()
        if self._site is not None:
            self._site.close()
            self._site.folder.wipe()
            shutil.rmtree(self._site.folder.path)

    async def _check(self, batch: Sequence[Sent]) -> list[Answer]:
        return list(await asyncio.gather(*(self._exchange(one) for one in batch)))

    async def _exchange(self, one: Sent) -> Answer:
        try:
            return await self._ask(one)
        except FindingError as finding:
            finding.culprit = one
            raise

    async def _ask(self, one: Sent) -> Answer:
        raw = one.raw.replace(TOKEN, self._gateway.token.encode())
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORTED)
        try:
            async with asyncio.timeout(HUNG_S):
                return judged(await self._talk(connection, raw))
        except TimeoutError:
            raise FindingError(f"neither answered nor closed within {HUNG_S:.0f} s") from None
        finally:
            connection.close()

    async def _talk(self, connection: socket.socket, raw: bytes) -> bytes:
        """What the gateway says until its answer is whole, or it has closed the connection."""
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, (self._address.hostname, self._address.port))
        received = bytearray()
        with suppress(ConnectionError):
            sending = asyncio.ensure_future(loop.sock_sendall(connection, raw))
            # Never cancelled to be begun again: what a cancelled one has just received is lost.
            receiving = asyncio.ensure_future(_receive(connection, received))
            try:
                if not (await asyncio.wait([receiving], timeout=PATIENCE_S))[0]:
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_WR)
                await receiving
            finally:
                for task in (sending, receiving):
                    task.cancel()
                    with suppress(ConnectionError, asyncio.CancelledError):
                        await task
        return bytes(received)

    def _ensure_ordered(self) -> None:
        """Wait until the workers know the product."""
        deadline = time.monotonic() + HUNG_S
        while time.monotonic() < deadline:
            with suppress(FindingError):
                self._order("before")
                return
            time.sleep(LOOK_AGAIN_S)
        self._order("before")

    def _order(self, when: str) -> None:
        """Place one as it should be."""
        headers = {"Idempotency-Key": f"fuzz-{when}-{secrets.token_hex(8)}"}
        answer = request(
            self._gateway.url, "POST", "/v1/orders", token=self._gateway.token, body=ORDER, headers=headers
        )
        if answer.status != 201:
            raise FindingError(f"a plain order is answered with {answer.status} {answer.text}")


async def _receive(connection: socket.socket, received: bytearray) -> None:
    loop = asyncio.get_running_loop()
    while not is_whole(received) and len(received) < RECEIVED_BYTES_MAX:
        piece = await loop.sock_recv(connection, 1 << 16)
        if not piece:
            return
        received += piece


def is_whole(received: bytes | bytearray) -> bool:
    """Whether the first answer is there to its end, as far as it tells where that is."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    if b"HTTP/1.1 100" in head[:12]:
        return is_whole(body)
    head += b"\r\n"
    if length := _LENGTH.search(head):
        return len(body) >= int(length[1])
    if _CHUNKED.search(head):
        return body.endswith(b"0\r\n\r\n")
    return head[9:12] in (b"204", b"304")


def judged(received: bytes) -> Answer:
    """What an answer says, when it is one that may be. Raises FindingError."""
    if not received:
        return Answer(accepted=False, label="closed")
    status = _status_of(received)
    if status == 100:
        return judged(received.partition(b"\r\n\r\n")[2])
    head, _, body = received.partition(b"\r\n\r\n")
    head += b"\r\n"
    if not _PROBLEM.search(head):
        if status >= 500:
            raise FindingError(f"{status} of nobody: {received[:300]!r}", "500")
        return Answer(accepted=status < 400, label=str(status))
    length = _LENGTH.search(head)
    if length is None or len(body) < int(length[1]):
        return Answer(accepted=False, label=f"{status} cut")  # Of HEAD, or the connection was closed meanwhile.
    code = _code_of(status, body[: int(length[1])])
    return Answer(accepted=False, label=f"{status} {code}")


def _status_of(received: bytes) -> int:
    found = _STATUS.match(received)
    if found is None:
        raise FindingError(f"no HTTP: {received[:300]!r}")
    status = int(found[1])
    if status == 500:
        raise FindingError(f"500: {received[:1000]!r}", "500")
    return status


def _code_of(status: int, body: bytes) -> str:
    problem: dict[str, Any] = json.loads(body)
    code = str(problem["code"])
    if code == "internal" or PROBLEMS[code].status != status:
        raise FindingError(f"{status} {code}: {body[:1000]!r}")
    return code


def _open_site() -> Site:
    site = Site(Path(tempfile.mkdtemp(prefix="floodgate-fuzz-")), SCALED)
    try:
        site.open()
    except BaseException:
        site.close()
        raise
    return site


def _gateway_of(site: Site | None) -> Gateway:
    assert site is not None
    return Gateway(site.url, site.token, site.workers, site.log(GATEWAY).read_text)
