"""The bell between workers: short calls over one channel, heard by everybody who listens at that moment.

A call may get lost or come twice, and nobody is told: whoever waits for units calls again, and what a call brings about
does no harm when it comes again.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Annotated, Literal, NamedTuple

import msgspec
import structlog
from redis.asyncio import Connection

from persistence.errors import MirrorUnavailableError
from persistence.redis.client import Client
from persistence.redis.node import FAILURES, Command, Reply, describe

CHANNEL = "fg:bell"
SILENCE_S = 1.0  # without a word, after which the server is asked whether it is still there
ANSWER_S = 1.0  # and how long it has for its answer
PAUSE_S = 0.5  # before a lost subscription is opened again

log = structlog.get_logger("mirror")


class Ring(NamedTuple):
    """`wanted`: somebody waits for units of the SKU; `freed`: units of it have become free."""

    kind: Literal["wanted", "freed"]
    # A SKU of up to 200 characters, or a sale's id and a SKU.
    sku: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


_decode = msgspec.json.Decoder(Ring).decode


def ring_command(ring: Ring) -> Command:
    """What makes everybody hear it: a JSON array of kind and SKU on the channel."""
    return ("PUBLISH", CHANNEL, msgspec.json.encode(ring))


class Listener:
    """Hears the calls of everybody, its own process included. `run` is called once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.listening = False
        self.malformed = 0

    async def run(self, heard: Callable[[Ring], None]) -> None:
        """Listen until cancelled. Whatever ends the subscription, it is opened again, with whichever server answers; a
        server that is silently gone is noticed within SILENCE_S + ANSWER_S. What was called meanwhile is lost.
        """
        while True:
            async with aclosing(self._rings()) as rings:
                async for ring in rings:
                    heard(ring)
            await asyncio.sleep(PAUSE_S)

    async def _rings(self) -> AsyncGenerator[Ring, None]:
        """What one subscription brings, until it is lost."""
        try:
            connection = await self._client.subscribe(CHANNEL)
        except MirrorUnavailableError:
            return  # The client has logged it.
        self.listening = True
        try:
            while True:
                ring = self._ring_of(await self._next(connection))
                if ring is not None:
                    yield ring
        except FAILURES as error:
            log.warning("bell_lost", error=describe(error))
        finally:
            self.listening = False
            await connection.disconnect(nowait=True)

    async def _next(self, connection: Connection) -> Reply:
        message = await connection.read_response(timeout=SILENCE_S)
        return await self._ask(connection) if message is None else message

    async def _ask(self, connection: Connection) -> Reply:
        """The answer to whether the server is there, or what it says instead. Raises TimeoutError."""
        async with asyncio.timeout(ANSWER_S):
            await connection.send_command("PING")
            return await connection.read_response()

    def _ring_of(self, message: Reply) -> Ring | None:
        """The call in a message; None for anything else."""
        match message:
            case [b"message", _, bytes(payload)]:
                try:
                    return _decode(payload)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    self.malformed += 1
        return None
