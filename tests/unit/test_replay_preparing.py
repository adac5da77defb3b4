"""Preparing catalogue and stock: what is missing is made, what stands is left, and a second time changes nothing."""

import asyncio
from typing import Any

import msgspec
import pytest

from gateway.channels.feed import Goods
from gateway.cli.edge import CONCURRENCY, Answer, EdgeError
from gateway.cli.preparing import Prepared, at_once, ensure_goods, product_path, stock_path

TEA = Goods("TEA/1", "Tea", 1999, "CNY", 10)
POSTAGE = Goods("POST", "Postage", 500, "CNY", None)


class FakeShop:
    """Products and stock by path, as the gateway keeps them."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.written: list[tuple[str, str]] = []
        self.refusing = False

    async def ask(self, method: str, path: str, document: Any = None, headers: object = None) -> Answer:
        assert headers is None, "only orders have a key"
        if method == "GET":
            found = self.kept.get(path)
            return Answer(404, {}, b"{}") if found is None else Answer(200, {}, msgspec.json.encode(found))
        if self.refusing:
            return Answer(422, {}, b'{"code":"invalid","errors":[{"pointer":"#/price","detail":"must be less"}]}')
        self.written.append((method, path))
        before = self.kept.get(path, {"active": True}) if method == "PATCH" else {"active": True}
        self.kept[path] = before | document
        return Answer(200, {}, b"{}")


async def test_ensure_goods_of_nothing_makes_product_and_stock() -> None:
    shop = FakeShop()

    assert await ensure_goods(shop, TEA) == Prepared(product=True, stock=True)
    assert shop.kept["/v1/products/TEA%2F1"] == {
        "title": "Tea", "price": 1999, "currency": "CNY", "stocked": True, "active": True,
    }  # fmt: skip
    assert shop.kept["/v1/stock/TEA%2F1"]["total"] == 10


async def test_ensure_goods_twice_changes_nothing_the_second_time() -> None:
    shop = FakeShop()
    await ensure_goods(shop, TEA)
    before = list(shop.written)

    assert await ensure_goods(shop, TEA) == Prepared(product=False, stock=False)
    assert shop.written == before


async def test_ensure_goods_with_stock_of_another_total_leaves_it() -> None:
    shop = FakeShop()
    await ensure_goods(shop, TEA)
    shop.kept[stock_path(TEA.sku)]["total"] = 3

    await ensure_goods(shop, TEA)

    assert shop.kept[stock_path(TEA.sku)]["total"] == 3


async def test_ensure_goods_with_another_price_changes_it_and_leaves_it_off_sale() -> None:
    shop = FakeShop()
    await ensure_goods(shop, TEA)
    shop.kept[product_path(TEA.sku)] |= {"price": 1, "active": False}

    await ensure_goods(shop, TEA)

    assert shop.kept[product_path(TEA.sku)]["price"] == 1999
    assert shop.kept[product_path(TEA.sku)]["active"] is False


async def test_ensure_goods_that_are_not_counted_makes_no_stock() -> None:
    shop = FakeShop()

    await ensure_goods(shop, POSTAGE)

    assert shop.kept[product_path("POST")]["stocked"] is False
    assert stock_path("POST") not in shop.kept


async def test_ensure_goods_refused_names_the_sku_and_the_fault() -> None:
    shop = FakeShop()
    shop.refusing = True

    with pytest.raises(EdgeError, match="TEA/1: 422 invalid: #/price must be less"):
        await ensure_goods(shop, TEA)


async def test_at_once_runs_no_more_than_the_limit_together() -> None:
    running, most = 0, 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return number * 2

    outcomes = {job: outcome async for job, outcome in at_once(range(100), work)}

    assert outcomes == {number: number * 2 for number in range(100)}
    assert most == CONCURRENCY


async def test_at_once_after_an_error_leaves_nothing_running() -> None:
    async def work(number: int) -> None:
        if number == 3:
            raise EdgeError("no")
        await asyncio.Event().wait()

    with pytest.raises(EdgeError):
        async for _ in at_once(range(50), work):
            pass
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize(
    ("sku", "path"), [("a/b", "a%2Fb"), ("a b?#%", "a%20b%3F%23%25"), ("茶", "%E8%8C%B6"), ("..", "..")]
)
def test_product_path_of_any_sku_is_one_segment(sku: str, path: str) -> None:
    assert product_path(sku) == f"/v1/products/{path}"
