"""Makes a durable consumer start again from the beginning of the stream: for a reader whose own memory was put back to
an earlier time. What it still remembers it knows by the events' ids.
"""

import nats
from nats.js.errors import NotFoundError

from persistence.errors import StreamUnavailableError
from persistence.nats.client import connect
from persistence.nats.stream import NAME


async def rewind(url: str, durable: str) -> bool:
    """Forget how far `durable` has read the stream of orders; whoever runs it makes it anew. Returns whether there was
    one. Raises StreamUnavailableError.
    """
    client = await connect(url, "fg-rewind")
    try:
        return bool(await client.jetstream().delete_consumer(NAME, durable))
    except NotFoundError:
        return False
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise StreamUnavailableError(f"the consumer {durable} cannot be rewound: {error!r}") from error
    finally:
        await client.close()
