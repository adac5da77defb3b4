"""The ceilings of the stores send what a gateway would: the same rows and events, each order with an id of its own."""

import asyncio

import pytest

from bench import stored, workload
from core_ext import ids, rows
from core_ext.shapes import Product
from gateway.batch import Pending
from gateway.domain.access import Client
from persistence.postgres.ledger import COPY_BYTES_MAX
from tests.unit.fake_ledger import START_S
from tests.unit.fakes import Road

NOW_MS = int(START_S * 1000)
LOCAL = Client(1, "local", frozenset({"orders:write"}), frozenset({"app"}))
OTHER = bytes(16)


@pytest.fixture
async def pending() -> Pending:
    """The canonical order as admission queues it."""
    road = Road({workload.SKU: 0})
    road.catalogue.products[workload.SKU] = Product(workload.SKU, "Flash", workload.PRICE, workload.CURRENCY)
    road.hold(1, workload.SKU)
    placing = asyncio.ensure_future(road.place(body_=workload.body(), client=LOCAL))
    (found,) = await road.queue.take()
    placing.cancel()
    return found


def without_id(text: bytes, order_id: bytes) -> bytes:
    return text.replace(order_id, OTHER).replace(ids.format_id(order_id).encode(), OTHER)


def test_stored_rows_are_those_that_admission_makes(pending: Pending) -> None:
    order, change = stored.order_at(NOW_MS)
    made, entry = stored.rows_of(order, change), pending.entry
    assert without_id(made["order_lines"], order.id) == without_id(b"".join(entry.line_rows), entry.order_id)
    assert without_id(made["order_history"], order.id) == without_id(entry.history_row, entry.order_id)
    # Ciphertexts are never the same twice.
    assert len(made["orders"]) == len(entry.order_row)
    assert len(made["order_key"]) == len(entry.key_row)


def test_stored_event_is_the_one_that_admission_makes(pending: Pending) -> None:
    (event, *_) = stored.Events(NOW_MS, "orders").batch(NOW_MS)
    of_admission = pending.event
    assert len(event.payload) == len(of_admission.payload)
    assert event.subject.rpartition(".")[0] == of_admission.subject.rpartition(".")[0]
    assert {name: len(value) for name, value in event.headers.items()} == {
        name: len(value) for name, value in of_admission.headers.items()
    }
    assert len(event.id) == len(of_admission.id)


def test_stored_events_have_ids_of_their_own_and_the_subject_that_is_asked_for() -> None:
    events = stored.Events(NOW_MS, "bench")
    sent = [event for _ in range(3) for event in events.batch(NOW_MS)]
    assert len({event.id for event in sent}) == len(sent) == 3 * stored.BATCH
    assert {event.subject[:14] for event in sent} == {"bench.created."}


def ids_of(batch: stored.Batch, table: str) -> list[bytes]:
    """The order ids of a table's rows, read as PostgreSQL reads them."""
    found = []
    for stream in batch.streams[table]:
        payload = bytes(stream.payload)
        assert payload.startswith(rows.HEADER)
        assert payload.endswith(rows.TRAILER)
        assert len(payload) <= COPY_BYTES_MAX
        rest = payload[len(rows.HEADER) : -len(rows.TRAILER)]
        while rest:
            fields, at = int.from_bytes(rest[:2], "big"), 2
            found.append(rest[6:22])
            for _ in range(fields):
                length = int.from_bytes(rest[at : at + 4], "big", signed=True)
                at += 4 + max(length, 0)
            rest = rest[at:]
    return found


def test_batch_has_as_many_orders_in_every_table_with_the_same_ids() -> None:
    batch = stored.Batch(NOW_MS)
    tables = {table: ids_of(batch, table) for table in batch.streams}
    assert set(tables) == {"orders", "order_lines", "order_history", "order_key"}
    assert len(set(tables["orders"])) == stored.BATCH
    assert all(found == tables["orders"] for found in tables.values())


def test_batch_renewed_has_other_ids_of_the_new_instant_and_is_otherwise_the_same() -> None:
    batch = stored.Batch(NOW_MS)
    before, others = ids_of(batch, "orders"), bytes(batch.streams["order_key"][0].payload)
    batch.renew(NOW_MS + 1)
    after = ids_of(batch, "orders")
    assert {ids.time_of(one) for one in after} == {NOW_MS + 1}
    assert not {*before} & {*after}
    assert [one[6:] for one in after] == [one[6:] for one in before]
    assert all(ids_of(batch, table) == after for table in batch.streams)
    old, new = NOW_MS.to_bytes(6, "big"), (NOW_MS + 1).to_bytes(6, "big")
    assert bytes(batch.streams["order_key"][0].payload) == others.replace(old, new)
