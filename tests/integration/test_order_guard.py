"""The ledger's guard: no statement makes of an order what the table of its life does not allow, whatever the statement,
and none changes what an order was placed with.
"""

import itertools
from collections.abc import AsyncIterator

import asyncpg
import pytest

from gateway.domain.lifecycle import STATUSES, moves
from tests.ledger_world import World, draft, force, new_id, open_world

WRONG_MOVE, WRONG_CHANGE = "FG006", "FG005"


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        await world.ledger().commit(new_id(), [draft()])
        yield world


async def refused(world: World, statement: str) -> str | None:
    """The SQLSTATE with which the guard refuses it, if it does."""
    try:
        await world.pool.execute(statement)
    except asyncpg.PostgresError as error:
        return str(error.sqlstate)
    return None


@pytest.mark.parametrize("before", STATUSES)
async def test_guard_lets_an_order_become_what_the_table_says_and_nothing_else(world: World, before: str) -> None:
    for after in STATUSES:
        await force(world.pool, "update orders set status = $1, version = 1", before)
        answer = await refused(world, f"update orders set status = '{after}', version = version + 1")
        assert answer == (None if (before, after) in moves() else WRONG_MOVE), (before, after)
        wanted = after if answer is None else before
        assert await world.value("select status from orders") == wanted


def test_matrix_has_every_pair() -> None:
    pairs = set(itertools.product(STATUSES, STATUSES))
    assert len(pairs) == 100
    assert 0 < len(set(moves()) & pairs) == len(moves()) < 100


@pytest.mark.parametrize(
    "change",
    [
        "status = 'paid'",
        "status = 'paid', version = 3",
        "version = 0",
        "version = version + 1, total = total + 1",
        "customer_id = 'somebody-else'",
        "client_id = 99",
        "currency = 'USD', version = 2",
        "created_at = created_at - interval '1 day'",
    ],
)
async def test_guard_refuses_what_no_change_of_an_order_does(world: World, change: str) -> None:
    before = await world.pool.fetchrow("select * from orders")
    answer = await refused(world, f"update orders set {change}")
    assert answer in {WRONG_CHANGE, "23514"}, change
    assert await world.pool.fetchrow("select * from orders") == before


async def test_guard_stands_in_every_partition(world: World) -> None:
    tables = "select count(*) from pg_inherits where inhparent = 'orders'::regclass"
    guards = (
        "select count(*) from pg_trigger t join pg_inherits i on i.inhrelid = t.tgrelid "
        "where tgname = 'order_guard' and inhparent = 'orders'::regclass"
    )
    assert await world.value(guards) == await world.value(tables) > 0


async def test_guard_leaves_alone_what_says_nothing_of_an_order_s_life(world: World) -> None:
    assert await refused(world, "update orders set personal = null") is None
