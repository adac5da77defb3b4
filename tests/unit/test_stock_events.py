"""The events of stock: one golden event, and what a consumer rests on."""

import json
import zlib

import pytest

from gateway.domain.levels import level_of
from gateway.domain.stock_keys import stock_key
from gateway.stock_events import event_of
from persistence.postgres.levels import LevelChange

CHANGE = LevelChange(stock_key("double-11", "茶/1"), 7, "back_in_stock", "low", "sold_out", 3, 1_800_000_000_123)
GOLDEN = (
    '{"specversion":"1.0","id":"646f75626c652d31311fe88cb62f31.7","source":"/floodgate/local",'
    '"type":"com.floodgate.stock.back_in_stock.v1","subject":"茶/1","time":"2027-01-15T08:00:00.123Z",'
    '"datacontenttype":"application/json","dataschema":"urn:floodgate:schema:stock.back_in_stock.v1",'
    '"sequence":"0000000007","partitionkey":"茶/1","data":{"sku":"茶/1","sale_id":"double-11","level":"low",'
    '"previous_level":"sold_out","available":3,"version":7}}'
)


def test_event_of_a_sale_has_its_golden_bytes() -> None:
    event = event_of(CHANGE, "/floodgate/local")
    assert event.payload.decode() == GOLDEN
    assert event.id == "646f75626c652d31311fe88cb62f31.7"


def test_event_of_everyday_stock_has_no_sale() -> None:
    event = event_of(CHANGE._replace(sku="茶/1"), "/floodgate/local")
    assert event.id == "茶/1".encode().hex() + ".7"
    assert "sale_id" not in json.loads(event.payload)["data"]


@pytest.mark.parametrize("sku", ["85123A", "茶/1", "a.b*>", " "])
def test_event_of_a_sku_has_a_subject_that_is_one_whatever_it_is_called(sku: str) -> None:
    everyday, in_sale = (event_of(CHANGE._replace(sku=stock_key(sale, sku)), "/s").subject for sale in (None, "s-1"))
    assert everyday == in_sale == f"stock.back_in_stock.{zlib.crc32(sku.encode()) % 16:02d}"


@pytest.mark.parametrize(
    ("available", "low_units", "level"),
    [
        (0, 10, "sold_out"),
        (1, 10, "low"),
        (10, 10, "low"),
        (11, 10, "in_stock"),
        (1, 0, "in_stock"),
        (0, 0, "sold_out"),
    ],
)
def test_level_of_units_is_as_the_ledger_draws_it(available: int, low_units: int, level: str) -> None:
    assert level_of(available, low_units) == level
