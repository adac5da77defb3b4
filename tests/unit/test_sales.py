"""Sales in memory: their states to the millisecond, what they sell after the catalogue has changed, whose units are
asked for ahead, and the counts of refusals.
"""

from collections.abc import Iterable
from typing import Any, cast

import msgspec
import pytest
import structlog

from core_ext.shapes import Product
from gateway.catalogue import Catalogue
from gateway.domain.outcomes import Refusal
from gateway.domain.sales import Sale
from gateway.edge.answers import problem
from gateway.leases import Leases
from gateway.sales import LEAD_S, Sales, sale_of
from tests.unit.fake_ledger import START_S, FakeRefusals
from tests.unit.fakes import SALE, SKU, FakeSession, FrozenClock, sale_row

KEY = f"{SALE}\x1f{SKU}"
START_MS = int(START_S * 1000)


class StockingUp:
    """Stands for Leases: notes what is asked for ahead."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def stock_up(self, keys: Iterable[str]) -> None:
        self.asked += keys


class Ledger:
    """A connection to a ledger with these sales."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    async def fetchval(self, *_query: object) -> int:
        return 1

    async def fetch(self, *_query: object) -> list[dict[str, Any]]:
        return self._rows


class World:
    def __init__(self) -> None:
        self.clock = FrozenClock()
        self.catalogue = Catalogue()
        self.catalogue.put(Product(SKU, "HEART T-LIGHT", 255, "CNY", limit=7))
        self.leases = StockingUp()
        self.refusals = FakeRefusals()
        self.session = FakeSession(self.refusals)
        self.sales = Sales(self.session, self.clock, self.catalogue, cast("Leases", self.leases))

    def put(self, opens_in_s: float = 0, open_for_s: float = 3600, **changes: Any) -> Sale:
        self.sales.apply([sale_row(opens_in_s, open_for_s, **changes)])
        sale = self.sales.find(SALE)
        assert sale
        return sale

    def sold(self) -> Product:
        sale = self.sales.find(SALE)
        assert sale
        return self.sales.products(sale)[SKU]


@pytest.fixture
def world() -> World:
    return World()


@pytest.mark.parametrize(
    ("after_ms", "state"),
    [(-60_000, "not_open"), (-1, "not_open"), (0, "open"), (9_999, "open"), (10_000, "closed"), (60_000, "closed")],
)
def test_sale_is_open_from_its_start_until_right_before_its_end(after_ms: int, state: str) -> None:
    assert sale_of(sale_row(open_for_s=10)).state(START_MS + after_ms) == state


def test_sale_that_ends_at_its_start_never_opens() -> None:
    sale = sale_of(sale_row(open_for_s=0))
    assert [sale.state(START_MS + ms) for ms in (-1, 0, 1)] == ["not_open", "closed", "closed"]


@pytest.mark.parametrize(("early_ms", "wait"), [(1, "1"), (999, "1"), (1000, "1"), (1001, "2"), (90_000, "90")])
def test_sale_not_open_says_when_it_opens_and_how_long_to_wait(early_ms: int, wait: str) -> None:
    refusal = sale_of(sale_row()).refusal(START_MS - early_ms)
    assert refusal
    answer = problem(refusal, "r-1")
    document = msgspec.json.decode(answer.body)
    assert (answer.status, document["code"], document["opens_at"]) == (409, "sale_not_open", "2026-09-21T14:13:20.000Z")
    assert dict(answer.headers)[b"retry-after"] == wait.encode()


def test_sale_closed_asks_for_no_other_try() -> None:
    refusal = sale_of(sale_row(open_for_s=1)).refusal(START_MS + 1000)
    assert refusal
    answer = problem(refusal, "r-1")
    assert (answer.status, msgspec.json.decode(answer.body)["code"]) == (409, "sale_closed")
    assert b"retry-after" not in dict(answer.headers)


def test_sales_before_they_are_loaded_say_so(world: World) -> None:
    assert not world.sales.loaded


def test_sale_sells_the_product_at_its_own_price_and_limit(world: World) -> None:
    world.put(limits=[2])
    assert world.sold() == Product(SKU, "HEART T-LIGHT", 99, "CNY", limit=2)


def test_sale_without_a_limit_has_the_product_s(world: World) -> None:
    world.put()
    assert world.sold().limit == 7


def test_sale_follows_the_catalogue_and_keeps_its_price(world: World) -> None:
    world.put()
    world.sold()
    world.catalogue.put(Product(SKU, "NEW TITLE", 300, "EUR", stocked=False, active=False, version=2))
    assert world.sold() == Product(SKU, "NEW TITLE", 99, "CNY", stocked=True, active=False, version=2)


def test_sale_follows_the_rules_of_limits(world: World) -> None:
    world.catalogue.put(Product(SKU, "HEART T-LIGHT", 255, "CNY", version=2))
    world.put()
    assert world.sold().limit is None
    world.catalogue.apply_limits(lambda _: 3)
    assert world.sold().limit == 3


def test_sale_of_a_product_that_is_not_known_yet_sells_it_once_it_is(world: World) -> None:
    sale = world.put(skus=["NEW"])
    assert world.sales.products(sale) == {}
    world.catalogue.put(Product("NEW", "New", 1, "CNY"))
    assert list(world.sales.products(sale)) == ["NEW"]


def test_sale_changed_sells_at_the_new_price(world: World) -> None:
    world.put()
    world.sold()
    world.put(version=2, prices=[49])
    assert world.sold().price == 49


def test_sale_of_an_older_version_changes_nothing(world: World) -> None:
    world.put(version=2, prices=[49])
    world.put(version=1)
    assert world.sold().price == 49


@pytest.mark.parametrize(
    ("opens_in_s", "asked"), [(LEAD_S + 0.001, []), (LEAD_S, [KEY]), (0.001, [KEY]), (-1, []), (-3600, [])]
)
def test_sale_is_stocked_up_for_right_before_its_start(world: World, opens_in_s: float, asked: list[str]) -> None:
    world.put(opens_in_s)
    world.leases.asked.clear()
    world.sales.stock_up()
    assert world.leases.asked == asked


@pytest.mark.parametrize(("opens_in_s", "asked"), [(0, [KEY]), (-3600, []), (1, [])])
def test_sale_that_becomes_known_while_open_is_stocked_up_for(
    world: World, opens_in_s: float, asked: list[str]
) -> None:
    world.put(opens_in_s)
    assert world.leases.asked == asked


async def test_refusals_are_added_to_the_ledger_once(world: World) -> None:
    sale = world.put()
    for code in ("sold_out", "sale_closed", "sold_out"):
        world.sales.count(sale, code)
    await world.sales.flush()
    await world.sales.flush()
    assert world.refusals.counts == {(SALE, "sold_out"): 2, (SALE, "sale_closed"): 1}


async def test_refusals_wait_while_the_ledger_is_away(world: World) -> None:
    sale = world.put()
    world.session.away = True
    world.sales.count(sale, "sold_out")
    with structlog.testing.capture_logs():
        await world.sales.flush()
    world.sales.count(sale, "sold_out")
    world.session.away = False
    await world.sales.flush()
    assert world.refusals.counts == {(SALE, "sold_out"): 2}


async def test_refusals_that_the_ledger_does_not_take_are_raised_and_not_lost(world: World) -> None:
    sale = world.put()
    world.sales.count(sale, "sold_out")
    world.refusals.error = RuntimeError("no such table")
    with pytest.raises(RuntimeError):
        await world.sales.flush()
    world.refusals.error = None
    await world.sales.flush()
    assert world.refusals.counts == {(SALE, "sold_out"): 1}


async def test_load_that_fails_halfway_is_done_again(world: World) -> None:
    bad = Ledger([sale_row(prices=[])])
    with pytest.raises(ValueError, match="zip"):
        await world.sales.load(bad)
    assert not world.sales.loaded
    assert await world.sales.load(Ledger([sale_row()])) == 1
    assert world.sales.find(SALE)


def test_refusal_of_a_sale_that_was_moved_since_is_that_of_the_new_time(world: World) -> None:
    sale = world.put()
    world.put(opens_in_s=-3600, version=2)
    refusal = world.sales.refusal(sale)
    assert isinstance(refusal, Refusal)
    assert refusal.code == "sale_closed"
