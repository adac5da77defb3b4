"""A crowd of patient buyers of one SKU over several workers of one process, and whether what they were told was right.

A buyer asks again, with the same key and over any worker that lives, until he has an order or hears `sold_out`; that is
right only if, by the orders created up to then, fewer units were left than he wanted.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

from gateway.edge.answers import Answer
from tests.worker_world import Shop, World, code_of, eventually, order

TOGETHER = 24  # buyers at a time
ANSWER_S = 10  # a worker that has not answered by then hangs
# Units in anybody's hands, a dead worker's included, count as there until an order has them.
LEFT = """
select $1 - coalesce(sum(l.quantity), 0)::bigint from order_lines l join orders o using (order_id)
where l.sku = $2 and o.created_at <= to_timestamp($3)
"""


class Refused(NamedTuple):
    quantity: int
    at_s: float


class Crowd:
    """Buyers of `units` of a SKU that is new to the world. `bought` and `refused` are what they were told."""

    def __init__(self, world: World, shops: list[Shop], sku: str, units: int, choose: random.Random) -> None:
        self.world, self.shops, self.sku, self.units, self.choose = world, shops, sku, units, choose
        self.bought: list[int] = []
        self.refused: list[Refused] = []

    async def prepare(self, shards: int) -> None:
        """Make the SKU, and wait until every worker knows it."""
        await self.world.product(self.sku, self.units, shards=shards)
        for shop in self.shops:
            await eventually("the product is known", lambda shop=shop: self._known(shop))  # type: ignore[misc]

    async def buy(self, quantities: Sequence[int]) -> None:
        """One order of each quantity, TOGETHER at a time."""
        waiting = iter(list(enumerate(quantities)))

        async def one() -> None:
            for number, quantity in waiting:
                await self._buy(f"{self.sku}-{number}", quantity)

        await asyncio.gather(*(one() for _ in range(TOGETHER)))

    def in_hand(self, shop: Shop) -> int:
        """Units that a worker holds and has not sold."""
        return sum(lease.units - lease.used for lease in shop.services.leases.till.leases() if lease.sku == self.sku)

    async def assert_right(self, quantity_min: int) -> None:
        """All that could be sold is sold, every order was answered, and nobody was refused too early."""
        stored = await self.world.value("select sum(quantity) from order_lines where sku = $1", self.sku)
        assert stored == sum(self.bought)
        assert self.units - stored < quantity_min, f"{self.sku}: {self.units - stored} units are stranded"
        await self.assert_refusals_right()

    async def assert_refusals_right(self, late_s: float = 0.0) -> None:
        """Nobody was refused although his units existed; `late_s` is by how much a restock may be noticed late."""
        for refused in self.refused:
            left = await self.world.value(LEFT, self.units, self.sku, refused.at_s - late_s)
            assert left < refused.quantity, f"{self.sku}: {left} units were left for {refused}"

    async def _buy(self, key: str, quantity: int) -> None:
        while True:
            shop = self.choose.choice([shop for shop in self.shops if not shop.stopped])
            answer = await place_or_die(shop, key, order(self.sku, quantity))
            if answer is None:
                continue
            if answer.status == 201:
                self.bought.append(quantity)
                return
            if answer.status < 500:
                assert code_of(answer) == "sold_out"
                self.refused.append(Refused(quantity, time.time()))
                return
            await asyncio.sleep(0.002)

    async def _known(self, shop: Shop) -> bool:
        return self.sku in shop.services.catalogue.products


async def place_or_die(shop: Shop, key: str, body: bytes) -> Answer | None:
    """The answer; None when the worker was killed before it gave one."""
    placing, killed = asyncio.ensure_future(shop.place(key, body)), asyncio.ensure_future(shop.killed.wait())
    done, waiting = await asyncio.wait({placing, killed}, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    assert done, "a living worker did not answer"
    return placing.result() if placing in done else None
