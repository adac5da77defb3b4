"""Opens connections to NATS: each comes back by itself and says so in the log. Nothing is buffered while one is away:
who publishes then is told so at once.
"""

import asyncio
import re
from collections.abc import Callable
from importlib.metadata import version

import nats
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from persistence.errors import StreamUnavailableError

CONNECT_TIMEOUT_S = 5.0
VERSIONS = "2.16."  # of nats-py whose ways of writing and of reading are known
NEXT_SERVER = re.compile(r",\s*(?=[a-z]+://|[^@,]+(?:,|$))")  # A comma in a password parts nothing.

# What takes a message: its subject, the subject to answer to, payload, and header block (empty without headers).
Take = Callable[[bytes, bytes, bytes, bytes], None]

log = structlog.get_logger("stream")


def servers_of(url: str) -> list[str]:
    """The addresses of servers that stand in one, parted by commas; the driver does not look for those itself."""
    return NEXT_SERVER.split(url)


def can_write_whole() -> bool:
    """Whether `write_whole` and `read_raw` may be used with the nats-py that is installed."""
    return version("nats-py").startswith(VERSIONS)


async def write_whole(client: Client, frames: bytes) -> None:
    """Send messages that are in the form of the protocol already, all in one write. Raises nats.errors.Error."""
    if not client.is_connected:
        raise nats.errors.OutboundBufferLimitError
    await client._send_command(frames)  # noqa: SLF001 - the version is known
    await client._flush_pending()  # noqa: SLF001 - as above


def read_raw(client: Client, subscription: Subscription, take: Take) -> None:
    """Give the messages of this subscription to `take` as they stand on the wire: nats-py reads each one's headers into
    a dict, and makes an object of it for a queue. One subscription of a client at a time; the others go on as ever.
    """
    number = subscription._id  # noqa: SLF001 - the version is known
    process = Client._process_msg  # noqa: SLF001 - as above

    async def process_raw(sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if sid == number:
            take(subject, reply, data, headers or b"")  # It is None without headers, whatever nats-py says.
        else:
            await process(client, sid, subject, reply, data, headers)

    client._process_msg = process_raw  # type: ignore[method-assign]  # noqa: SLF001 - as above


async def connect(url: str, name: str) -> Client:
    """A connection of its own, to a server of `url`. Raises StreamUnavailableError when none can be reached in time."""
    client = Client()

    async def on_disconnected() -> None:
        # Closing the connection ourselves is reported here too.
        if not client.is_closed:
            log.warning("nats_disconnected")

    try:
        await asyncio.wait_for(
            client.connect(
                servers_of(url),
                name=name,
                connect_timeout=2,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.2,  # type: ignore[arg-type]  # seconds, and only ever slept
                ping_interval=5,
                pending_size=-1,
                error_cb=_on_error,
                disconnected_cb=on_disconnected,
            ),
            CONNECT_TIMEOUT_S,
        )
    except asyncio.CancelledError:
        await client.close()
        raise
    except (nats.errors.Error, OSError, TimeoutError) as error:
        await client.close()
        why = f"no answer within {CONNECT_TIMEOUT_S:.0f} s" if isinstance(error, TimeoutError) else repr(error)
        raise StreamUnavailableError(f"NATS cannot be reached: {why}") from error
    return client


async def _on_error(error: Exception) -> None:
    log.warning("nats_error", error=repr(error))
