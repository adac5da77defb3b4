"""Topics that readers follow by polling. A writer raises its topic in the transaction of the change, under the row's
lock, so the values are ordered as the commits are, and a reader that asks for what came after a value misses nothing.
"""

import asyncpg

RAISE = "update revision set value = value + 1 where topic = $1 returning value"


async def fetch(connection: asyncpg.Connection) -> dict[str, int]:
    """The present value of every topic."""
    return {row["topic"]: row["value"] for row in await connection.fetch("select topic, value from revision")}
