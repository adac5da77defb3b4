"""Reads an event stream in its order, without leaving a trace in it: an ephemeral consumer without acks.

The reader keeps its own position, so a lost connection, a restarted server or a gap only makes it ask again from there.
For people who look, not for work that must be done once: that is `consume`.
"""

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from persistence.errors import StreamUnavailableError
from persistence.nats.client import connect
from persistence.nats.stream import NAME

FETCH_EVENTS = 200
FETCH_S = 2.0
PAUSE_S = 1.0
INACTIVE_S = 30.0  # after which the server forgets the consumer of a reader that is gone
Subscription = JetStreamContext.PullSubscription


class Reader:
    """Events of a stream stored since `since`, all without it. An async context manager; `payloads` or
    `messages` is called once.
    """

    def __init__(self, url: str, since: dt.datetime | None, name: str = NAME) -> None:
        self._url = url
        self._since = since
        self._name = name
        self._next: int | None = None
        self._expected = 1
        self._client: Client | None = None

    async def __aenter__(self) -> Self:
        self._client = await connect(self._url, "fg-read")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._client is not None
        await self._client.close()

    async def payloads(self, *, follow: bool) -> AsyncIterator[bytes]:
        """Each event once, in order; ends when caught up unless told to follow. Raises StreamUnavailableError."""
        async for message in self.messages(follow=follow):
            yield message.data

    async def messages(self, *, follow: bool) -> AsyncIterator[Msg]:
        """As `payloads`, with headers, and with number and time in the stream."""
        subscription: Subscription | None = None
        while True:
            try:
                if subscription is None:
                    subscription, pending = await self._subscribe()
                    if not pending and not follow:
                        return
                messages = await self._fetch(subscription)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                if not follow:
                    raise StreamUnavailableError(f"the stream cannot be read: {error!r}") from error
                subscription = None
                await asyncio.sleep(PAUSE_S)
                continue
            for message in messages:
                if message.metadata.sequence.consumer != self._expected:
                    subscription = None
                    break
                self._expected += 1
                self._next = message.metadata.sequence.stream + 1
                yield message
                if not message.metadata.num_pending and not follow:
                    return

    async def _fetch(self, subscription: Subscription) -> list[Msg]:
        try:
            return await subscription.fetch(FETCH_EVENTS, timeout=FETCH_S)
        except TimeoutError:
            # Nothing new, or nobody there any more: the consumer's state tells the two apart.
            await subscription.consumer_info()
            return []

    async def _subscribe(self) -> tuple[Subscription, int]:
        """A new consumer from the position on, and how many events it has to read."""
        assert self._client is not None, "a Reader is used inside `async with`"
        stream = self._client.jetstream()
        try:
            consumer = await stream.add_consumer(self._name, self._config())
        except NotFoundError as error:
            raise StreamUnavailableError(f"there is no stream {self._name}: `floodgate migrate` makes it") from error
        self._expected = 1
        subscription = await stream.pull_subscribe_bind(consumer=consumer.name, stream=self._name)
        return subscription, consumer.num_pending or 0

    def _config(self) -> ConsumerConfig:
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE, mem_storage=True, inactive_threshold=INACTIVE_S, num_replicas=1
        )
        if self._next is not None:
            return config.evolve(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self._next)
        if self._since is not None:
            return config.evolve(deliver_policy=DeliverPolicy.BY_START_TIME, opt_start_time=self._since)
        return config.evolve(deliver_policy=DeliverPolicy.ALL)
