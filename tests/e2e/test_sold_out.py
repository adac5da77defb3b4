"""A flash sale's crowd over two gateways on one ledger: exactly the stock is sold, everybody else hears `sold_out`, and
every buyer who asks again, over the other gateway or after a restart, hears what he was told.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import aiohttp
import msgspec
import pytest

from persistence.postgres.audit import audit
from tests.load import ANSWER_TIMEOUT_S
from tests.served import Served

BUYERS = 5000
TOGETHER = 64
UNITS = 1000
SCARCE = ("A", "B", "C")


class Answer(NamedTuple):
    status: int
    code: str
    body: bytes


class Purchase(NamedTuple):
    """A buyer's order; the same purchase made again has the same key and body."""

    key: str
    items: tuple[tuple[str, int], ...]

    def body(self) -> bytes:
        items = [{"sku": sku, "quantity": quantity} for sku, quantity in self.items]
        return msgspec.json.encode({"channel": "app", "currency": "CNY", "items": items})


@pytest.fixture
async def gateways(postgres_url: str, nats_url: str, redis_url: str) -> AsyncIterator[list[Served]]:
    first, second = Served(postgres_url, nats_url, redis_url), Served(postgres_url, nats_url, redis_url)
    second.token = first.token
    await first.prepare({"FLASH": UNITS, "SEVENS": UNITS, **dict.fromkeys(SCARCE, 300)})
    for gateway in (first, second):
        await gateway.start()
    yield [first, second]
    for gateway in (first, second):
        await gateway.close()


async def buy(gateways: Sequence[Served], purchases: Sequence[Purchase]) -> dict[str, Answer]:
    """Purchase number n over gateway n modulo their number, so many together; 503 is asked again, as it asks for."""
    answers: dict[str, Answer] = {}
    waiting = iter(list(zip(itertools.cycle(gateways), purchases, strict=False)))
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=TOGETHER), timeout=timeout) as session:

        async def one() -> None:
            for gateway, purchase in waiting:
                answers[purchase.key] = await place(session, gateway, purchase)

        await asyncio.gather(*(one() for _ in range(TOGETHER)))
    return answers


async def place(session: aiohttp.ClientSession, gateway: Served, purchase: Purchase) -> Answer:
    headers = {
        "Authorization": f"Bearer {gateway.token}",
        "Idempotency-Key": purchase.key,
        "Content-Type": "application/json",
    }
    while True:
        async with session.post(f"{gateway.url}/v1/orders", data=purchase.body(), headers=headers) as answer:
            body = await answer.read()
        if answer.status != 503:
            return Answer(answer.status, "" if answer.status == 201 else str(msgspec.json.decode(body)["code"]), body)
        await asyncio.sleep(0.05)


def counts(answers: dict[str, Answer]) -> Counter[tuple[int, str]]:
    return Counter((answer.status, answer.code) for answer in answers.values())


def told(answers: dict[str, Answer]) -> dict[str, object]:
    """What each buyer was told: the body of his order, or the code (a problem names the request it answers)."""
    return {key: answer.body if answer.status == 201 else answer.code for key, answer in answers.items()}


@pytest.mark.timeout(240)
async def test_sold_out_crowd_over_two_gateways_buys_exactly_the_stock_and_is_told_the_same_again(
    gateways: list[Served],
) -> None:
    purchases = [Purchase(f"flash-{number}", (("FLASH", 1),)) for number in range(BUYERS)]
    first = await buy(gateways, purchases)
    assert counts(first) == {(201, ""): UNITS, (409, "sold_out"): BUYERS - UNITS}
    assert told(await buy(gateways[::-1], purchases)) == told(first)
    for gateway in gateways:
        assert await gateway.stop() == 0
    for gateway in gateways:
        await gateway.start()
    assert told(await buy(gateways, purchases)) == told(first)
    assert (await audit(gateways[0].postgres_url)).clean


@pytest.mark.timeout(120)
async def test_sold_out_with_seven_units_an_order_leaves_what_no_order_fits(gateways: list[Served]) -> None:
    purchases = [Purchase(f"seven-{number}", (("SEVENS", 7),)) for number in range(600)]
    answers = await buy(gateways, purchases)
    assert counts(answers) == {(201, ""): 142, (409, "sold_out"): 458}
    assert (await audit(gateways[0].postgres_url)).clean


@pytest.mark.timeout(120)
async def test_sold_out_orders_over_three_scarce_skus_strand_nothing(gateways: list[Served]) -> None:
    choose = itertools.cycle([("A", "B", "C"), ("C", "A"), ("B", "C"), ("A",), ("C",), ("B", "A")])
    purchases = [
        Purchase(f"scarce-{number}", tuple((sku, 1) for sku in skus))
        for number, skus in zip(range(1500), choose, strict=False)
    ]
    answers = await buy(gateways, purchases)
    assert set(counts(answers)) == {(201, ""), (409, "sold_out")}
    rows = await gateways[0].fetch("select sku, sum(quantity)::bigint as units from order_lines group by sku")
    sold = {row["sku"]: row["units"] for row in rows}
    # A and C are also asked for alone, by more buyers than there are units: what the others left has been sold.
    assert (sold["A"], sold["C"]) == (300, 300)
    assert sold["B"] <= 300
    report = await audit(gateways[0].postgres_url)
    assert report.clean
    deadlocks = await gateways[0].fetch("select deadlocks from pg_stat_database where datname = current_database()")
    assert deadlocks[0]["deadlocks"] == 0
