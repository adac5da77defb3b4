"""Asks a durable consumer for events, many at a time: one request at a time, and what came for it taken in bulk.

nats-py's own `fetch` makes a task and a timer for every message. What comes too late for its request is never lost: the
next call hands it out. Nothing here decides what an event is worth.
"""

import asyncio
from typing import NamedTuple

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import Header

from persistence.nats import frames
from persistence.nats.client import read_raw
from persistence.nats.stream import RESENT

HEAD = b"NATS/1.0"
STATUS_AT = len(HEAD) + 1  # of a message that is no event but says how a request stands: "NATS/1.0 404 No Messages"
HEARTBEAT = "100"
NONE_THERE = ("404", "408")  # no messages; the request's time is over
EXPIRES_PART = 0.9  # of the time that we wait: the server's word that nothing is there is to come in time
PLAIN_TOKENS = 9  # of an event's answer subject without domain and account: $JS.ACK.<stream>.<consumer>. ...
MARK = f"\r\n{RESENT}:".encode()


class RefusedError(Exception):
    """The request was not served; the status of NATS."""


class Delivery(NamedTuple):
    """An event that was handed out: its payload, the subject to answer to, and its header block as on the wire."""

    payload: bytes
    reply: bytes
    headers: bytes

    @property
    def id(self) -> str:
        """Its Nats-Msg-Id, or its place in the stream when it has none."""
        for line in self.headers.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name == b"Nats-Msg-Id":
                return value.strip().decode(errors="replace")
        return f"sequence {self._count(1)}"

    @property
    def attempts(self) -> int:
        """How often it was handed out, this time included."""
        return self._count(0)

    @property
    def is_resent(self) -> bool:
        """Whether it was sent again from the tables, however long ago it was told."""
        return MARK in self.headers

    def _count(self, place: int) -> int:
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<sequence in the stream>. ...
        tokens = self.reply.split(b".")
        return int(tokens[place + (4 if len(tokens) == PLAIN_TOKENS else 6)])


class Pull:
    """The requests of one process to the consumer `durable` of `stream`. `open` comes first; one `fetch` at a time."""

    def __init__(self, client: Client, stream: str, durable: str) -> None:
        self._client = client
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._came: list[Delivery] = []  # no more than the consumer's ACK_PENDING_MAX
        self._asked = b""  # the inbox of the request under way
        self._number = 0
        self._limit = 0
        self._status = ""
        self._ended = asyncio.Event()

    async def open(self, *, raw: bool) -> None:
        """Take what comes, as it stands on the wire or by nats-py's public way. Raises nats.errors.Error."""
        subject = f"{self._inbox}.*"
        if raw:
            self._subscription = await self._client.subscribe(subject)
            read_raw(self._client, self._subscription, self._take)
        else:
            self._subscription = await self._client.subscribe(subject, cb=self._take_message)

    async def fetch(self, limit: int, wait_s: float) -> list[Delivery]:
        """What there is, up to `limit`, at once; waits up to `wait_s` for the first event. Returns none when there is
        none, and at once when other processes' requests stand first. Raises TimeoutError when NATS says nothing at all,
        RefusedError, and nats.errors.Error.
        """
        if not self._came:
            await self._ask(limit, wait_s)
        taken, self._came = self._came[:limit], self._came[limit:]
        return taken

    def left(self) -> list[Delivery]:
        """What has come and was not handed out; it is the caller's now."""
        left, self._came = self._came, []
        return left

    async def close(self) -> None:
        """Take no more. Raises nats.errors.Error."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def _ask(self, limit: int, wait_s: float) -> None:
        # With both, the server sends what it has and ends the request there; only for the first event it waits.
        question = {"batch": limit, "no_wait": True, "expires": int(wait_s * EXPIRES_PART * 1e9)}
        self._number += 1
        reply = f"{self._inbox}.{self._number}"
        self._asked, self._limit, self._status = reply.encode(), limit, ""
        self._ended.clear()
        await self._client.publish(self._next, msgspec.json.encode(question), reply)
        try:
            async with asyncio.timeout(wait_s):
                await self._ended.wait()
        except TimeoutError:
            if not self._came:
                raise
        if not self._came and self._status not in NONE_THERE:
            raise RefusedError(self._status)

    def _take(self, subject: bytes, reply: bytes, payload: bytes, headers: bytes) -> None:
        if headers.startswith(b" ", len(HEAD)):
            self._take_status(subject, headers[STATUS_AT : STATUS_AT + 3].decode(errors="replace"))
            return
        self._came.append(Delivery(payload, reply, headers))
        if len(self._came) >= self._limit:
            self._ended.set()

    async def _take_message(self, message: Msg) -> None:
        """As `_take`, from what nats-py has made of it."""
        headers = message.headers or {}
        if status := headers.get(Header.STATUS):
            self._take_status(message.subject.encode(), status)
            return
        lines = frames.headers(headers)
        self._take(b"", message.reply.encode(), message.data, b"%b\r\n%b\r\n" % (HEAD, lines.encode()))

    def _take_status(self, subject: bytes, status: str) -> None:
        # An event comes under its own subject, a status under the inbox of its request: an earlier one's says nothing.
        if subject == self._asked and status != HEARTBEAT:
            self._status = status
            self._ended.set()
