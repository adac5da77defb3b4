"""The sweep: tells the mirror how many units are free of the SKUs that are on watch, whose last units move, so that a
push that was lost is mended before the mirror forgets the SKU.

Any number of stewards may: a later state of a shard wins, whoever tells it.
"""

from persistence.postgres import stock
from persistence.postgres.session import Session
from persistence.redis.mirror import Mirror, Shard

PIECE_SKUS = 500  # told in one go


class Sweep:
    """One pass at a time."""

    def __init__(self, session: Session, mirror: Mirror) -> None:
        self._session = session
        self._mirror = mirror

    async def run_pass(self) -> None:
        """Tell of every SKU on watch. Raises LedgerUnavailableError, MirrorUnavailableError."""
        after: str | None = ""
        while after is not None:
            shards, after = await self._watched(after)
            await self._mirror.push([Shard(*shard) for shard in shards])

    async def _watched(self, after: str) -> tuple[list[stock.Shard], str | None]:
        return await self._session.run(lambda connection: stock.watched_shards(connection, after, PIECE_SKUS))
