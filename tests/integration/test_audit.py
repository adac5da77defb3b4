"""The audit finds what it promises to find: each invariant is broken once, by hand, and its check names the row.

An honest ledger is clean.
"""

import uuid
from collections.abc import AsyncIterator

import pytest

from persistence.postgres.audit import audit
from tests.ledger_world import PRICE, World, draft, force, new_id, open_world

OTHER = uuid.UUID(bytes=new_id())

DROP_AHEAD = """
do $$ declare name text; begin
    for name in select inhrelid::regclass::text from pg_inherits where inhparent = 'order_key'::regclass
        order by 1 desc limit 3
    loop execute 'drop table ' || name; end loop;
end $$
"""

# What is wrong -> the check that has to find it, and how it comes about.
DAMAGE = {
    "a unit too many is free": ("stock_balances", "update stock_shard set free = free + 1"),
    "a unit has gone from a lease": ("stock_balances", "update stock_lease set units = units - 1"),
    "a lease is closed with units in it": ("stock_balances", "update stock_lease set state = 'closed'"),
    "an order was cancelled and its units stayed away": ("stock_balances", "update orders set status = 'cancelled'"),
    "units of no SKU lie in a shard": (
        "stock_balances",
        "insert into stock_shard (sku, shard, free) values ('LOST', 0, 5)",
    ),
    "more is held than there is": ("not_oversold", "update stock_sku set total = 2"),
    "a total is off": ("totals_add_up", "update orders set total = total + 1"),
    "an amount is off": ("totals_add_up", "update order_lines set unit_price = unit_price + 1"),
    "an order has lost its lines": ("totals_add_up", "delete from order_lines"),
    "a line is missing": ("totals_add_up", "update order_lines set line = 2"),
    "an order has lost its history": ("history_is_whole", "delete from order_history"),
    "the history says something else": ("history_is_whole", "update order_history set status = 'paid'"),
    "a version has no history": ("history_is_whole", "update orders set version = 2"),
    "lines have lost their order": ("rows_have_orders", "delete from orders"),
    "a key belongs to no order": ("one_order_per_key", f"update idempotency_key set order_id = '{OTHER}'"),
    "two keys belong to one order": (
        "one_order_per_key",
        "insert into idempotency_key select gen_random_uuid(), order_id, fingerprint from idempotency_key",
    ),
    "the outbox names an order that does not exist": (
        "outbox_is_committed",
        f"update outbox set order_ids = array['{OTHER}'::uuid]",
    ),
    "the outbox names a version that does not exist": ("outbox_is_committed", "update outbox set versions = array[2]"),
    "the outbox has a batch that was fenced": ("outbox_is_committed", "update batch set outcome = 'fenced'"),
    "an order without personal data has a key": ("personal_data_is_sealed", "update orders set personal = null"),
    "a buyer has taken more than he holds": ("limits_agree", "insert into buyer_taken values ('TEA', 'u-1', 1)"),
    "a limited line counts nowhere": ("limits_agree", "update order_lines set limited = true"),
    "the units of a sale were taken from elsewhere": ("stock_balances", "update orders set sale_id = 'spring'"),
    "no partition lies ahead": ("partitions_are_ahead", DROP_AHEAD),
}


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    """A ledger with an order of 3 of 10 units, personal data included."""
    async with open_world(postgres_url) as world:
        hand = await world.hand(units=10)
        await world.ledger().commit(new_id(), [draft((hand, 3), personal=b"sealed")])
        yield world


async def broken(world: World) -> set[str]:
    return {finding.check for finding in (await audit(world.url)).findings if finding.count}


async def test_audit_of_an_honest_ledger_is_clean(world: World) -> None:
    report = await audit(world.url)
    assert report.clean
    assert not any(finding.off for finding in report.findings)


async def test_audit_of_an_empty_ledger_is_clean(postgres_url: str) -> None:
    assert (await audit(postgres_url)).clean


async def test_audit_counts_what_there_is(world: World) -> None:
    assert (await audit(world.url)).totals == {
        "orders": 1,
        "lines": 1,
        "units": 3,
        "value": 3 * PRICE,
        "outbox": 1,
        "owners": 1,
    }


@pytest.mark.parametrize("damage", DAMAGE)
async def test_audit_of_a_damaged_ledger_names_the_broken_check(world: World, damage: str) -> None:
    check, statement = DAMAGE[damage]
    await force(world.pool, statement)
    assert check in await broken(world)


async def test_audit_has_a_test_for_every_check(postgres_url: str) -> None:
    assert {finding.check for finding in (await audit(postgres_url)).findings} == {
        check for check, _ in DAMAGE.values()
    }


async def test_audit_of_adjusted_orders_adds_the_adjustments(world: World) -> None:
    await force(
        world.pool, """update orders set total = total - 50, adjustments = '[{"type": "discount", "amount": -50}]'"""
    )
    assert await broken(world) == set()


async def test_audit_counts_units_owed_to_a_marketplace_apart(world: World) -> None:
    await world.pool.execute("update stock_sku set total = 4, owed = 6")
    assert await broken(world) == set()


async def test_audit_of_a_cancelled_order_whose_units_went_back_is_clean(world: World) -> None:
    await force(world.pool, "update orders set status = 'cancelled'")
    await world.pool.execute("update order_history set status = 'cancelled'")
    await world.pool.execute("update stock_shard set free = free + 3")
    assert await broken(world) == set()


async def test_audit_shows_some_rows_and_counts_all(world: World) -> None:
    await world.ledger().commit(new_id(), [draft() for _ in range(30)])
    await world.pool.execute("delete from order_history")
    (finding,) = [finding for finding in (await audit(world.url)).findings if finding.check == "history_is_whole"]
    assert (finding.count, len(finding.off)) == (31, 10)
