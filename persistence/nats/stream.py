"""The event streams, of orders and of stock: publishes events as JetStream atomic batches and knows which were stored.

nats-py's own acks never complete after a server crash, so acks are kept here, in a table of their own, each with a
time-out. A late or lost ack is not a loss: StreamUnavailableError means "not known to be stored", and whoever sends the
same event again sends the same `Nats-Msg-Id`.
"""

import asyncio
import itertools
import math
import secrets
from collections.abc import Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Literal, NamedTuple

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, PersistMode, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError

from persistence.errors import StreamUnavailableError
from persistence.nats import frames
from persistence.nats.client import can_write_whole, connect, write_whole

NAME = "ORDERS"
STOCK = "STOCK"
SUBJECTS = {NAME: ["orders.>"], STOCK: ["stock.>"]}
BATCH_MESSAGES_MAX = 1000  # the server refuses a larger atomic batch as a whole
BATCH_BYTES_MAX = 4 << 20
DUPLICATE_IN_BATCH = 10201  # one id that is known already refuses a whole atomic batch
STREAM_FULL = 10077
CONTENT_TYPE = "application/cloudevents+json"
# A header of events that were sent again from the tables, however long ago they were told: whoever forgets ids after a
# while cannot know whether it has seen them.
RESENT = "Floodgate-Resent"


class Event(NamedTuple):
    """`id` is the CloudEvents id and the Nats-Msg-Id; `payload` the CloudEvent in structured JSON; `headers` go beside
    those that every event has.
    """

    subject: str
    id: str
    payload: bytes
    headers: Mapping[str, str] = MappingProxyType({})


class Message(NamedTuple):
    """An event on its way: where it is acknowledged, if anywhere, and what JetStream has to be told besides."""

    event: Event
    reply: str
    headers: dict[str, str]


class Ack(msgspec.Struct):
    """JetStream's answer to a publish."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    count: int = 0
    error: dict[str, object] | None = None


class StreamSettings(NamedTuple):
    """Of each stream; `max_bytes` 0: no bound."""

    replicas: int
    max_age_s: int
    duplicate_window_s: int
    max_bytes: int = 0


# Settings of a stream that can be changed while it holds events, and those that cannot.
CHANGEABLE = ("subjects", "discard", "max_age", "max_bytes", "duplicate_window", "num_replicas", "allow_atomic")
FIXED = ("storage", "retention")

_decode_ack = msgspec.json.Decoder(Ack).decode


class Stream:
    """A connection to NATS that comes back by itself. `publish` may be called by several tasks at once. The events of a
    call go in one write, unless `whole` is False or nats-py is none that is known: then singly, by its public call.
    """

    def __init__(self, url: str, name: str, ack_timeout_s: float, *, whole: bool = True) -> None:
        self._url = url
        self._name = name
        self._ack_timeout_s = ack_timeout_s
        self._whole = whole and can_write_whole()
        self._client: Client | None = None
        self._inbox = ""
        self._tokens = itertools.count()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._opening = asyncio.Lock()
        self.full = False  # whether the last event was refused for want of room

    @property
    def way(self) -> Literal["whole", "singly"]:
        """How the events of a publish go to the server."""
        return "whole" if self._whole else "singly"

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.is_connected

    @property
    def payload_bytes_max(self) -> int:
        """The largest message that the server takes, 0 while that is unknown."""
        return self._client.max_payload if self._client is not None and self._client.is_connected else 0

    async def ensure_open(self) -> Client:
        """Connect unless connected. Raises StreamUnavailableError."""
        async with self._opening:
            if self._client is None or self._client.is_closed:
                self._client = await self._connect()
        if not self._client.is_connected:
            raise StreamUnavailableError("NATS cannot be reached")
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def ensure_streams(self, settings: StreamSettings) -> None:
        """Make every stream of ours, or bring its settings up to date. One that cannot be changed keeps no other from
        it. Raises StreamUnavailableError, the first one.
        """
        first: StreamUnavailableError | None = None
        for name in SUBJECTS:
            try:
                await self.ensure_stream(settings, name)
            except StreamUnavailableError as error:
                first = first or error
        if first is not None:
            raise first

    async def ensure_stream(self, settings: StreamSettings, name: str = NAME) -> None:
        """Make one stream, or bring its settings up to date. Raises StreamUnavailableError."""
        wanted = config_of(name, settings)
        try:
            jetstream = (await self.ensure_open()).jetstream(timeout=self._ack_timeout_s)
            try:
                found = (await jetstream.stream_info(name)).config
            except NotFoundError:
                await jetstream.add_stream(wanted)
                return
            changes = {
                setting: getattr(wanted, setting)
                for setting in CHANGEABLE
                if getattr(found, setting) != getattr(wanted, setting)
            }
            if changes:
                await jetstream.update_stream(found.evolve(**changes))
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise StreamUnavailableError(f"the stream {name} cannot be made or changed: {error!r}") from error

    async def faults(self, settings: StreamSettings) -> list[str]:
        """What is not as it should be of our streams, a line for each setting. Whether the server writes through to
        the disk (`sync_interval: always`) is not among it: no client can see that. Raises StreamUnavailableError.
        """
        found = []
        try:
            jetstream = (await self.ensure_open()).jetstream(timeout=self._ack_timeout_s)
            for name in SUBJECTS:
                try:
                    config = (await jetstream.stream_info(name)).config
                except NotFoundError:
                    found.append(f"there is no stream {name}: `floodgate migrate` makes it")
                else:
                    found += _differences(config, config_of(name, settings))
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise StreamUnavailableError(f"the streams' settings cannot be read: {error!r}") from error
        return found

    async def publish(self, events: Sequence[Event], stream: str = NAME) -> int:
        """Store every event in `stream`, in order, at most BATCH_MESSAGES_MAX of them. Returns, when the stream has
        acknowledged all, how many of them it knew already; raises StreamUnavailableError.
        """
        assert 0 < len(events) <= BATCH_MESSAGES_MAX
        client = await self.ensure_open()
        if len(events) == 1:
            return await self._publish_singly(client, events, stream)
        ack = await self._publish_atomic(client, events, stream)
        if ack.error is not None and ack.error.get("err_code") == DUPLICATE_IN_BATCH:
            return await self._publish_singly(client, events, stream)
        self._check(ack)
        if ack.count != len(events):
            raise StreamUnavailableError(f"the stream stored {ack.count} of {len(events)} events")
        return 0

    async def send_plainly(self, events: Sequence[Event], subject: str) -> None:
        """Send events to a subject that is none of ours, whoever listens there. Returns when the server has them;
        raises StreamUnavailableError.
        """
        client = await self.ensure_open()
        await self._send(client, [Message(event._replace(subject=subject), "", {}) for event in events])
        try:
            await client.flush(timeout=math.ceil(self._ack_timeout_s))
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise StreamUnavailableError(f"NATS does not take the events: {error!r}") from error

    async def _publish_atomic(self, client: Client, events: Sequence[Event], stream: str) -> Ack:
        """The first message names the stream, which is enough: one that belonged to another stream would be missing in
        the batch, and a batch with a gap is refused as a whole.
        """
        batch_id, last = secrets.token_hex(16), len(events)
        token, reply = self._expect_reply()
        messages = []
        for sequence, event in enumerate(events, 1):
            headers = {"Nats-Batch-Id": batch_id, "Nats-Batch-Sequence": str(sequence)}
            if sequence == 1:
                headers["Nats-Expected-Stream"] = stream
            if sequence == last:
                headers["Nats-Batch-Commit"] = "1"
            messages.append(Message(event, reply if sequence == last else "", headers))
        try:
            await self._send(client, messages)
            return await self._ack(token)
        finally:
            self._waiting.pop(token, None)

    async def _publish_singly(self, client: Client, events: Sequence[Event], stream: str) -> int:
        tokens: list[str] = []
        duplicates = 0
        try:
            messages = []
            for event in events:
                token, reply = self._expect_reply()
                tokens.append(token)
                messages.append(Message(event, reply, {"Nats-Expected-Stream": stream}))
            await self._send(client, messages)
            for token in tokens:
                ack = await self._ack(token)
                self._check(ack)
                duplicates += ack.duplicate
        finally:
            for token in tokens:
                self._waiting.pop(token, None)
        return duplicates

    def _check(self, ack: Ack) -> None:
        self.full = ack.error is not None and ack.error.get("err_code") == STREAM_FULL
        if ack.error is not None or ack.seq <= 0:
            raise StreamUnavailableError(f"the stream refuses an event: {ack.error}")

    async def _send(self, client: Client, messages: Sequence[Message]) -> None:
        try:
            if self._whole:
                await _send_whole(client, messages)
                return
            for event, reply, headers in messages:
                await client.publish(event.subject, event.payload, reply=reply, headers=_headers(event) | headers)
        except (nats.errors.Error, frames.FrameError, OSError) as error:
            raise StreamUnavailableError(f"NATS does not take an event: {error!r}") from error

    def _expect_reply(self) -> tuple[str, str]:
        token = str(next(self._tokens))
        self._waiting[token] = asyncio.get_running_loop().create_future()
        return token, f"{self._inbox}.{token}"

    async def _ack(self, token: str) -> Ack:
        try:
            message = await asyncio.wait_for(self._waiting[token], self._ack_timeout_s)
            if message.headers and message.headers.get("Status"):
                raise StreamUnavailableError("no stream takes the event")
            return _decode_ack(message.data)
        except TimeoutError as error:
            raise StreamUnavailableError("the stream did not acknowledge in time") from error
        except msgspec.DecodeError as error:
            raise StreamUnavailableError(f"the stream's answer is not an ack: {error}") from error

    async def _connect(self) -> Client:
        client = await connect(self._url, self._name)
        try:
            self._inbox = client.new_inbox()
            await client.subscribe(f"{self._inbox}.*", cb=self._on_reply)
        except (nats.errors.Error, OSError) as error:
            await client.close()
            raise StreamUnavailableError(f"NATS cannot be reached: {error!r}") from error
        return client

    async def _on_reply(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject.rpartition(".")[2])
        if waiting is not None and not waiting.done():
            waiting.set_result(message)


def config_of(name: str, settings: StreamSettings) -> StreamConfig:
    """The settings of one of our streams. It never drops an event that is younger than `max_age_s`: a full one refuses
    new ones, which wait in the ledger then.
    """
    return StreamConfig(
        name=name,
        subjects=SUBJECTS[name],
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        max_age=settings.max_age_s,
        max_bytes=settings.max_bytes or -1,
        duplicate_window=settings.duplicate_window_s,
        num_replicas=settings.replicas,
        allow_atomic=True,
    )


def _differences(found: StreamConfig, wanted: StreamConfig) -> list[str]:
    faults = []
    if found.persist_mode == PersistMode.ASYNC:
        faults.append(f"stream {wanted.name}: persist_mode is async, which switches sync_interval off: make it anew")
    for settings, remedy in ((FIXED, "it can only be made anew"), (CHANGEABLE, "the steward changes it if it can")):
        for setting in settings:
            have, want = getattr(found, setting), getattr(wanted, setting)
            if have != want:
                faults.append(f"stream {wanted.name}: {setting} is {_shown(have)}, not {_shown(want)}: {remedy}")
    return faults


def _shown(value: object) -> object:
    return value.value if isinstance(value, Enum) else value


def _headers(event: Event) -> dict[str, str]:
    return {"Nats-Msg-Id": event.id, "Content-Type": CONTENT_TYPE, **event.headers}


async def _send_whole(client: Client, messages: Sequence[Message]) -> None:
    """What `publish` does for each, once for all of them."""
    bytes_max = client.max_payload
    written = [
        frames.message(event.subject, reply, frames.headers(_headers(event) | headers), event.payload, bytes_max)
        for event, reply, headers in messages
    ]
    await write_whole(client, b"".join(written))
