"""Adjustments of stock that are refused before the ledger is asked."""

import pytest

from core_ext.limits import MONEY_MAX
from gateway import api
from tests.api import Reply, call, services

GOOD = b'{"delta":1,"reason":"count"}'


async def adjust(body: bytes, headers: list[tuple[str, str]] | None = None) -> Reply:
    given = [("idempotency-key", "k")] if headers is None else headers
    return await call(api.create(services()), "POST", "/v1/stock/A/adjustments", body, given)


async def test_adjust_stock_without_a_key_is_400() -> None:
    reply = await adjust(GOOD, [])
    assert (reply.status, reply.code) == (400, "key_missing")


@pytest.mark.parametrize("keys", [[""], ["a b"], ["ü"], ["a" * 256], ['"'], ["a", "a"]])
async def test_adjust_stock_with_a_bad_key_is_400(keys: list[str]) -> None:
    reply = await adjust(GOOD, [("idempotency-key", key) for key in keys])
    assert (reply.status, reply.code) == (400, "key_invalid")


@pytest.mark.parametrize("delta", [0, MONEY_MAX + 1, -MONEY_MAX - 1])
async def test_adjust_stock_by_no_units_or_too_many_is_422_and_names_the_delta(delta: int) -> None:
    reply = await adjust(b'{"delta":%d,"reason":"count"}' % delta)
    assert (reply.status, reply.code) == (422, "invalid")
    assert [(error["pointer"], error["code"]) for error in reply.json["errors"]] == [("#/delta", "out_of_range")]


@pytest.mark.parametrize(
    "body", [b'{"delta":1}', b'{"delta":1,"reason":""}', b'{"delta":1,"reason":null}', b'{"delta":1,"reason":"a\\nb"}']
)
async def test_adjust_stock_without_a_reason_is_422(body: bytes) -> None:
    reply = await adjust(body)
    assert [error["pointer"] for error in reply.json["errors"]] == ["#/reason"]


async def test_movements_with_a_made_up_cursor_are_refused() -> None:
    reply = await call(api.create(services()), "GET", "/v1/stock/A/movements?cursor=x")
    assert (reply.status, reply.code) == (400, "bad_cursor")
