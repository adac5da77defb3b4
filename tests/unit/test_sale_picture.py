"""The picture of a sale shows what its record says, and the record is of a whole run that adds up."""

import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from bench.sale import Told, bins, summary
from deploy.pictures import sale


@pytest.fixture
def record() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sale.RECORD.read_text())
    return found


def test_picture_is_what_its_record_gives(record: dict[str, Any]) -> None:
    assert sale.PICTURE.read_text() == sale.render(record), "run: python -m deploy.pictures.sale"


def test_picture_is_well_formed_and_named(record: dict[str, Any]) -> None:
    picture = ET.fromstring(sale.render(record))
    assert picture.findtext("{http://www.w3.org/2000/svg}title") == record["title"]


def test_picture_follows_the_units(record: dict[str, Any]) -> None:
    more = record | {"sale": record["sale"] | {"units": record["sale"]["units"] + 1000}}
    assert sale.render(more) != sale.render(record)


def test_record_sells_every_unit_once_and_answers_every_buyer(record: dict[str, Any]) -> None:
    answers = record["summary"]["answers"]
    assert answers["accepted"] == record["sale"]["units"] == record["ledger"]["audit"]["totals"]["orders"]
    assert answers["accepted"] + answers["sold_out"] == record["sale"]["buyers"]
    assert sum(answers.values()) == record["summary"]["presses"] == sum(record["pressed"])
    assert {code: sum(counts) for code, counts in record["answers"].items()} == answers
    assert record["ledger"]["audit"]["clean"]
    assert set(answers) <= {code for band in sale.BANDS for code in band.codes}


def test_record_names_machine_versions_date_and_method(record: dict[str, Any]) -> None:
    assert record["machine"]["processor"]
    assert record["machine"]["cores"] > 0
    assert record["versions"]["floodgate"]
    assert record["date"]
    assert record["method"]


def test_bins_count_what_buyers_were_told_by_its_moment() -> None:
    told = Told(opens_at=0.0)
    told.presses = [-0.07, 0.01]
    told.answers = [(-0.06, "sale_not_open", 0.01), (0.02, "accepted", 0.01), (0.06, "sold_out", 0.04)]
    found = bins(told)
    assert found["first_bin_ms"] == -100
    assert found["pressed"] == [1, 0, 1, 0]
    assert found["answers"] == {
        "accepted": [0, 0, 1, 0],
        "sale_not_open": [1, 0, 0, 0],
        "sold_out": [0, 0, 0, 1],
    }


def test_summary_tells_first_and_last_order_and_how_long_they_took() -> None:
    told = Told(opens_at=0.0)
    told.presses = [0.0, 0.0, 0.0]
    told.answers = [(0.02, "accepted", 0.02), (0.05, "accepted", 0.05), (0.06, "sold_out", 0.06)]
    found = summary(told)
    assert (found["first_order_ms"], found["last_order_ms"], found["first_sold_out_ms"]) == (20.0, 50.0, 60.0)
    assert found["answers"] == {"accepted": 2, "sold_out": 1}
    assert found["accepted_wait_ms"]["p99"] == 50.0
