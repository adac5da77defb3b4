"""The NATS side of a durable consumer: hands out events that are not acknowledged yet, to as many processes as ask.

What is neither acknowledged nor given back comes again after `ACK_WAIT_S`, to whoever asks then: at least once, so the
effect has to be kept together with the event's id. How often an event came is known; what that means is the caller's.
"""

import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from persistence.errors import StreamUnavailableError
from persistence.nats.client import can_write_whole, connect, write_whole
from persistence.nats.stream import NAME, RESENT

ACK_WAIT_S = 30.0
ACK_PENDING_MAX = 10_000  # events handed out and not acknowledged, of all processes together
ERRORS = (nats.errors.Error, OSError, TimeoutError)


class Delivery(NamedTuple):
    """An event that was handed out."""

    payload: bytes
    message: Msg

    @property
    def id(self) -> str:
        """Its Nats-Msg-Id, or its place in the stream when it has none."""
        headers = self.message.headers or {}
        return headers.get("Nats-Msg-Id") or f"sequence {self.message.metadata.sequence.stream}"

    @property
    def attempts(self) -> int:
        """How often it was handed out, this time included."""
        return self.message.metadata.num_delivered

    @property
    def is_resent(self) -> bool:
        """Whether it was sent again from the tables, however long ago it was told."""
        return RESENT in (self.message.headers or {})


class Consumer:
    """One process's part in the durable consumer `durable` on the subjects `subject` of the stream of orders.

    Acknowledgements that belong together go in one write, unless `whole` is False or nats-py is none that is known.
    Every method raises StreamUnavailableError when NATS cannot be reached, or has no stream; the next call tries again.
    """

    def __init__(self, url: str, durable: str, subject: str, *, whole: bool = True) -> None:
        self._url = url
        self._durable = durable
        self._subject = subject
        self._whole = whole and can_write_whole()
        self._client: Client | None = None
        self._subscription: JetStreamContext.PullSubscription | None = None

    async def fetch(self, limit: int, wait_s: float) -> list[Delivery]:
        """What there is, up to `limit`, at once; waits up to `wait_s` for the first event and may return none."""
        subscription = self._subscription or await self._bind()
        try:
            messages = await subscription.fetch(limit, timeout=wait_s)
        except TimeoutError:
            await self._check(subscription)
            return []
        except ERRORS as error:
            await self._unbind()
            raise StreamUnavailableError(f"events cannot be fetched: {error!r}") from error
        return [Delivery(message.data, message) for message in messages]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done. An acknowledgement that gets lost only brings its event again."""
        try:
            if self._client is not None and self._whole:
                acks = [f"PUB {delivery.message.reply} 0\r\n\r\n" for delivery in deliveries]
                await write_whole(self._client, "".join(acks).encode())
                return
            for delivery in deliveries:
                await delivery.message.ack()
        except ERRORS as error:
            raise StreamUnavailableError(f"events cannot be acknowledged: {error!r}") from error

    async def give_back(self, deliveries: Sequence[Delivery], pause_s: float) -> None:
        """These are to come again after `pause_s`, to whoever asks then."""
        try:
            for delivery in deliveries:
                await delivery.message.nak(delay=pause_s)
        except ERRORS as error:
            raise StreamUnavailableError(f"events cannot be given back: {error!r}") from error

    async def terminate(self, delivery: Delivery) -> None:
        """Never again this one."""
        try:
            await delivery.message.term()
        except ERRORS as error:
            raise StreamUnavailableError(f"an event cannot be terminated: {error!r}") from error

    async def close(self) -> None:
        """Send what is still to be sent, and leave."""
        if self._client is not None:
            with contextlib.suppress(*ERRORS):
                await self._client.flush(timeout=1)
            await self._client.close()
            self._client = self._subscription = None

    async def _bind(self) -> JetStreamContext.PullSubscription:
        if self._client is None or self._client.is_closed:
            self._client = await connect(self._url, f"fg-{self._durable}")
        stream = self._client.jetstream()
        try:
            await stream.add_consumer(NAME, self._config())
            self._subscription = await stream.pull_subscribe_bind(consumer=self._durable, stream=NAME)
        except NotFoundError as error:
            raise StreamUnavailableError(f"there is no stream {NAME} yet") from error
        except ERRORS as error:
            raise StreamUnavailableError(f"the consumer {self._durable} cannot be made: {error!r}") from error
        return self._subscription

    async def _check(self, subscription: JetStreamContext.PullSubscription) -> None:
        """Nothing came: make sure that the consumer is still there, as it is not after the stream was made anew."""
        try:
            await subscription.consumer_info()
        except ERRORS as error:
            await self._unbind()
            raise StreamUnavailableError(f"the consumer {self._durable} does not answer: {error!r}") from error

    async def _unbind(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(*ERRORS):
                await subscription.unsubscribe()

    def _config(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self._durable,
            filter_subject=self._subject,
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_ack_pending=ACK_PENDING_MAX,
            max_deliver=-1,  # Giving up is decided by the caller, who can tell a bad event from a bad day.
        )
