"""Personal data of a buyer stand in the ledger as ciphertext and nowhere else: no table, event, log or metric shows
them, whatever goes wrong.
"""

import logging
from typing import Any

import pytest
import structlog

from tests.worker_world import World, code_of, eventually, open_world, order, order_id_of

CANARIES = ("金丝雀-note", "金丝雀-name", "金丝雀-phone", "金丝雀-street")
PERSONAL: dict[str, Any] = {
    "note": CANARIES[0],
    "ship_to": {"name": CANARIES[1], "phone": CANARIES[2], "street": CANARIES[3]},
}
TABLES = (
    "select oid::regclass::text as name from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
)


@pytest.fixture
async def world(postgres_url, nats_url):
    async with open_world(postgres_url, nats_url) as world:
        await world.product(units=10)
        yield world
        await world.assert_clean()


def assert_nothing_personal(place: str, text: str) -> None:
    for canary in CANARIES:
        assert canary not in text, place
        assert canary.encode().hex() not in text, place
        assert canary.encode("unicode_escape").decode() not in text, place


async def everything_goes(world: World) -> None:
    """An order that is accepted, its retry, refusals of every kind, and a ledger that fails."""
    shop = await world.shop()
    order_id_of(await shop.place("k-1", order(**PERSONAL)))
    order_id_of(await shop.place("k-1", order(**PERSONAL)))
    assert code_of(await shop.place("k-1", order(quantity=2, **PERSONAL))) == "key_reused"
    assert code_of(await shop.place("k-2", order(quantity=11, **PERSONAL))) == "sold_out"
    assert code_of(await shop.place("k-3", order(quantity=0, **PERSONAL))) == "invalid"
    assert code_of(await shop.place("k-4", order(channel=CANARIES[0]))) == "invalid"
    assert code_of(await shop.place("k-5", order(**PERSONAL)[:-1])) == "malformed_json"
    await world.end_backends()
    order_id_of(await shop.buy("k-6", order(**PERSONAL)))
    assert_nothing_personal("metrics", shop.services.exporter.text().decode())
    await eventually("the outbox is empty", world.outbox_is_empty)


async def test_personal_data_stand_in_no_table_in_plain(world: World):
    world.steward()
    await everything_goes(world)
    for row in await world.pool.fetch(TABLES):
        for stored in await world.pool.fetch(f"select t::text as text from {row['name']} t"):
            assert_nothing_personal(row["name"], stored["text"])


async def test_personal_data_stand_in_no_event(world: World):
    world.steward()
    await everything_goes(world)
    events = await world.events()
    assert len(events) == 2
    for event in events:
        assert_nothing_personal("event", event.subject + event.id + event.payload.decode())


async def test_personal_data_stand_in_no_log(world: World, caplog, capfd, postgres_server):
    with structlog.testing.capture_logs() as logged, caplog.at_level(logging.DEBUG, "gateway"):
        world.steward()
        await everything_goes(world)
    assert logged
    out, err = capfd.readouterr()
    assert_nothing_personal("logs", "".join([repr(logged), caplog.text, out, err]))
    assert_nothing_personal("the log of PostgreSQL", postgres_server.log_path.read_text(errors="replace"))


async def test_personal_data_are_shown_to_who_placed_the_order(world: World):
    shop = await world.shop()
    answer = await shop.place("k-1", order(**PERSONAL))
    assert all(canary.encode() in answer.body for canary in CANARIES)


async def test_personal_data_are_gone_once_their_key_is_deleted(world: World):
    shop = await world.shop()
    order_id_of(await shop.place("k-1", order(**PERSONAL)))
    await world.pool.execute("delete from order_key")
    assert_nothing_personal("replay", (await shop.place("k-1", order(**PERSONAL))).body.decode())
