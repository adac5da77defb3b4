"""Durable consumers that are made for somebody else, who may read from them and not make any."""

from contextlib import suppress

import nats
from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from persistence.errors import StreamUnavailableError
from persistence.nats.client import connect
from persistence.nats.consume import ACK_PENDING_MAX, ACK_WAIT_S, ERRORS


async def ensure_durable(url: str, stream: str, durable: str, subject: str) -> None:
    """Make it, or leave it where it stands, with the settings that an operator has given it since. Raises
    StreamUnavailableError.
    """
    config = ConsumerConfig(
        durable_name=durable,
        filter_subject=subject,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=ACK_PENDING_MAX,
        max_deliver=-1,
    )
    client = await connect(url, "fg-durable")
    try:
        with suppress(NotFoundError):
            found = (await client.jetstream().consumer_info(stream, durable)).config
            if found.filter_subject == subject:
                return
            config = found.evolve(filter_subject=subject)
        await client.jetstream().add_consumer(stream, config)
    except NotFoundError as error:
        raise StreamUnavailableError(f"there is no stream {stream}: `floodgate migrate` makes it") from error
    except ERRORS as error:
        raise StreamUnavailableError(f"the consumer {durable} cannot be made: {error!r}") from error
    finally:
        await client.close()


async def can_read(url: str, domain: str, stream: str, durable: str) -> bool:
    """Whether who has this address finds the durable, now."""
    client = Client()
    try:
        await client.connect(url, name="fg-durable", allow_reconnect=False, connect_timeout=1, error_cb=_ignored)
        await client.jetstream(domain=domain, timeout=1).consumer_info(stream, durable)
    except (nats.errors.Error, OSError, TimeoutError):
        return False
    finally:
        await client.close()
    return True


async def _ignored(error: Exception) -> None:
    """What is wrong shows in the answer."""
