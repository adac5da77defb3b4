"""The NATS side of a durable consumer: hands out events that are not acknowledged yet, to as many processes as ask.

What is neither acknowledged nor given back comes again after `ACK_WAIT_S`, to whoever asks then: at least once, so the
effect has to be kept together with the event's id. How often an event came is known; what that means is the caller's.
"""

import contextlib
from collections.abc import Sequence
from typing import Literal

import msgspec
import nats
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from persistence.errors import StreamUnavailableError
from persistence.nats.client import can_write_whole, connect, write_whole
from persistence.nats.pull import Delivery, Pull, RefusedError
from persistence.nats.stream import NAME

ACK_WAIT_S = 30.0
ACK_PENDING_MAX = 10_000  # events handed out and not acknowledged, of all processes together
ERRORS = (nats.errors.Error, OSError, TimeoutError)


class Consumer:
    """One process's part in the durable consumer `durable` on the subjects `subject` of the stream of orders.

    Events are read as they stand on the wire, and acknowledgements that belong together go in one write, unless `whole`
    is False or nats-py is none that is known.
    Every method raises StreamUnavailableError when NATS cannot be reached, or has no stream; the next call tries again.
    """

    def __init__(self, url: str, durable: str, subject: str, *, whole: bool = True) -> None:
        self._url = url
        self._durable = durable
        self._subject = subject
        self._whole = whole and can_write_whole()
        self._client: Client | None = None
        self._pull: Pull | None = None

    @property
    def way(self) -> Literal["whole", "singly"]:
        """How events come and acknowledgements go."""
        return "whole" if self._whole else "singly"

    async def fetch(self, limit: int, wait_s: float) -> list[Delivery]:
        """What there is, up to `limit`, at once; waits up to `wait_s` for the first event and may return none."""
        pull = self._pull or await self._bind()
        try:
            return await pull.fetch(limit, wait_s)
        except TimeoutError:
            await self._check()
            return []
        except (*ERRORS, RefusedError) as error:
            await self._unbind()
            raise StreamUnavailableError(f"events cannot be fetched: {error!r}") from error

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        """These are done. An acknowledgement that gets lost only brings its event again."""
        if self._client is None or not deliveries:
            return
        replies = [delivery.reply for delivery in deliveries]
        try:
            if self._whole:
                await write_whole(self._client, b"PUB %b 0\r\n\r\n" % b" 0\r\n\r\nPUB ".join(replies))
                return
            for reply in replies:
                await self._client.publish(reply.decode())
        except ERRORS as error:
            raise StreamUnavailableError(f"events cannot be acknowledged: {error!r}") from error

    async def give_back(self, deliveries: Sequence[Delivery], pause_s: float) -> None:
        """These are to come again after `pause_s`, to whoever asks then."""
        pause = msgspec.json.encode({"delay": int(pause_s * 1e9)}) if pause_s else b""
        try:
            for delivery in deliveries:
                await self._answer(delivery, b"-NAK %b" % pause)
        except ERRORS as error:
            raise StreamUnavailableError(f"events cannot be given back: {error!r}") from error

    async def terminate(self, delivery: Delivery) -> None:
        """Never again this one."""
        try:
            await self._answer(delivery, b"+TERM")
        except ERRORS as error:
            raise StreamUnavailableError(f"an event cannot be terminated: {error!r}") from error

    async def close(self) -> None:
        """Give back what was not handed out, send what is still to be sent, and leave."""
        if self._client is not None:
            with contextlib.suppress(*ERRORS, StreamUnavailableError):
                if self._pull is not None:
                    await self._pull.close()  # First: a request that still stands would get what is given back.
                    await self.give_back(self._pull.left(), 0.0)
                await self._client.flush(timeout=1)
            await self._client.close()
            self._client = self._pull = None

    async def _answer(self, delivery: Delivery, word: bytes) -> None:
        if self._client is not None:
            await self._client.publish(delivery.reply.decode(), word)

    async def _bind(self) -> Pull:
        if self._client is None or self._client.is_closed:
            self._client = await connect(self._url, f"fg-{self._durable}")
        pull = Pull(self._client, NAME, self._durable)
        try:
            await self._client.jetstream().add_consumer(NAME, self._config())
            await pull.open(raw=self._whole)
        except NotFoundError as error:
            raise StreamUnavailableError(f"there is no stream {NAME} yet") from error
        except ERRORS as error:
            raise StreamUnavailableError(f"the consumer {self._durable} cannot be made: {error!r}") from error
        self._pull = pull
        return pull

    async def _check(self) -> None:
        """Nothing was said: make sure that the consumer is still there."""
        assert self._client is not None
        try:
            await self._client.jetstream().consumer_info(NAME, self._durable)
        except ERRORS as error:
            await self._unbind()
            raise StreamUnavailableError(f"the consumer {self._durable} does not answer: {error!r}") from error

    async def _unbind(self) -> None:
        """What had come and was not handed out comes again, by ACK_WAIT_S."""
        pull, self._pull = self._pull, None
        if pull is not None:
            with contextlib.suppress(*ERRORS):
                await pull.close()

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
