"""The ledger's promise for one batch: which orders live, that all of a living order is stored, and that nothing of a
refused one is.

Written from the design, not from the code. Every test ends with books that balance.
"""

from collections.abc import AsyncIterator

import pytest

from persistence.errors import NotDurableError
from persistence.postgres import orders
from persistence.postgres.ledger import COPY_BYTES_MAX, BatchFencedError, Refusal
from tests.ledger_world import PRICE, Hand, World, draft, key_of, new_id, open_world

NOBODY = Hand(b"\x01" * 16, "TEA", 5)  # a lease that no ledger knows
OTHER_BODY = b"\x02" * 16


@pytest.fixture(params=[True, False], ids=["pipelined", "stepwise"])
async def world(postgres_url: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Once for each way that a batch can go."""
    async with open_world(postgres_url, pipelined=request.param) as world:
        yield world
        await world.assert_clean()


def verdicts(refusals: list[Refusal]) -> dict[bytes, str]:
    return {refusal.entry.order_id: refusal.verdict for refusal in refusals}


async def test_commit_of_one_order_stores_all_its_rows(world: World) -> None:
    hand = await world.hand()
    entry = draft((hand, 3), personal=b"sealed")
    assert await world.ledger().commit(new_id(), [entry]) == []
    assert await world.tables() == {
        "batch": 1,
        "idempotency_key": 1,
        "orders": 1,
        "order_lines": 1,
        "order_history": 1,
        "order_key": 1,
        "outbox": 1,
    }


async def test_commit_of_one_order_stores_what_was_encoded(world: World) -> None:
    hand = await world.hand("茶-α")
    entry = draft((hand, 3), personal=b"sealed")
    await world.ledger().commit(new_id(), [entry])
    stored = (await orders.fetch(world.pool, [entry.order_id], history=True))[entry.order_id]
    line = stored.lines[0]
    assert (line["sku"], line["title"], line["quantity"], line["amount"], line["stocked"]) == (
        "茶-α",
        "壶 Teapot",
        3,
        3 * PRICE,
        True,
    )
    assert stored.order["personal"] == b"sealed"
    assert stored.key is not None
    assert [change["event"] for change in stored.history] == ["created"]


async def test_commit_uses_units_of_the_lease(world: World) -> None:
    hand = await world.hand(units=10)
    await world.ledger().commit(new_id(), [draft((hand, 3)), draft((hand, 4))])
    assert await world.lease(hand) == (10, 7, "active")


async def test_commit_that_uses_the_last_unit_closes_the_lease(world: World) -> None:
    hand = await world.hand(units=10)
    await world.ledger().commit(new_id(), [draft((hand, 3)), draft((hand, 7))])
    assert await world.lease(hand) == (10, 10, "closed")


async def test_commit_of_a_thousand_orders_stores_them_all(world: World) -> None:
    hand = await world.hand(units=3000)
    entries = [draft((hand, 3)) for _ in range(1000)]
    assert await world.ledger().commit(new_id(), entries) == []
    assert await world.order_ids() == {entry.order_id for entry in entries}


async def test_commit_of_more_bytes_than_one_copy_stores_them_all(world: World) -> None:
    entries = [draft(title="长" * 200) for _ in range(1000)]
    assert sum(len(piece) for entry in entries for piece in entry.line_rows) > COPY_BYTES_MAX
    assert await world.ledger().commit(new_id(), entries) == []
    assert await world.count("order_lines") == 1000


async def test_commit_of_an_order_without_stock_needs_no_lease(world: World) -> None:
    assert await world.ledger().commit(new_id(), [draft()]) == []
    assert await world.count("orders") == 1


async def test_commit_puts_ids_and_versions_of_the_living_into_the_outbox(world: World) -> None:
    hand = await world.hand()
    living, fenced = draft((hand, 1)), draft((NOBODY, 1))
    batch_id = new_id()
    await world.ledger().commit(batch_id, [living, fenced])
    row = await world.pool.fetchrow("select batch_id, order_ids, versions from outbox")
    assert (row["batch_id"].bytes, [order_id.bytes for order_id in row["order_ids"]], row["versions"]) == (
        batch_id,
        [living.order_id],
        [1],
    )


async def test_commit_without_a_living_order_writes_no_outbox_row(world: World) -> None:
    await world.ledger().commit(new_id(), [draft((NOBODY, 1))])
    assert await world.count("outbox") == 0


@pytest.mark.parametrize("fingerprint", [bytes(16), OTHER_BODY], ids=["same_body", "other_body"])
async def test_commit_of_a_known_key_answers_the_stored_order_and_its_body(world: World, fingerprint: bytes) -> None:
    ledger = world.ledger()
    first = draft(key=key_of(1))
    await ledger.commit(new_id(), [first])
    again = draft(key=key_of(1), fingerprint=fingerprint)
    assert await ledger.commit(new_id(), [again]) == [Refusal(again, "duplicate", first.order_id, bytes(16))]


async def test_commit_of_a_known_key_leaves_nothing_of_the_second_order(world: World) -> None:
    hand = await world.hand(units=10)
    ledger = world.ledger()
    first = draft((hand, 1), key=key_of(1))
    await ledger.commit(new_id(), [first])
    before = await world.tables()
    await ledger.commit(new_id(), [draft((hand, 2), key=key_of(1), personal=b"sealed")])
    assert await world.tables() == before | {"batch": 2}
    assert await world.lease(hand) == (10, 1, "active")


async def test_commit_of_a_known_key_is_a_duplicate_although_its_lease_is_closed(world: World) -> None:
    hand = await world.hand()
    ledger = world.ledger()
    first = draft((hand, 1), key=key_of(1))
    await ledger.commit(new_id(), [first])
    await world.close_lease(hand)
    (refusal,) = await ledger.commit(new_id(), [draft((hand, 1), key=key_of(1))])
    assert (refusal.verdict, refusal.stored_order) == ("duplicate", first.order_id)


async def test_commit_from_a_closed_lease_is_fenced(world: World) -> None:
    hand = await world.hand()
    await world.close_lease(hand)
    entry = draft((hand, 1))
    assert verdicts(await world.ledger().commit(new_id(), [entry])) == {entry.order_id: "fenced"}


async def test_commit_from_a_lease_with_too_few_units_is_fenced(world: World) -> None:
    hand = await world.hand(units=5)
    entry = draft((hand, 6))
    assert verdicts(await world.ledger().commit(new_id(), [entry])) == {entry.order_id: "fenced"}
    assert await world.lease(hand) == (5, 0, "active")


async def test_commit_from_a_lease_that_is_too_short_for_all_sells_nothing_of_it(world: World) -> None:
    hand = await world.hand(units=5)
    entries = [draft((hand, 3)), draft((hand, 3))]
    assert set(verdicts(await world.ledger().commit(new_id(), entries)).values()) == {"fenced"}
    assert await world.lease(hand) == (5, 0, "active")


async def test_commit_from_a_missing_lease_is_fenced(world: World) -> None:
    entry = draft((NOBODY, 1))
    assert verdicts(await world.ledger().commit(new_id(), [entry])) == {entry.order_id: "fenced"}


async def test_commit_of_a_fenced_order_leaves_nothing_of_it(world: World) -> None:
    await world.ledger().commit(new_id(), [draft((NOBODY, 1), personal=b"sealed")])
    tables = await world.tables()
    assert tables == dict.fromkeys(tables, 0) | {"batch": 1}


async def test_commit_of_an_order_over_three_leases_one_of_them_closed_leaves_nothing_of_it(world: World) -> None:
    hands = [await world.hand(sku, 10) for sku in ("A", "B", "C")]
    await world.close_lease(hands[1])
    entry = draft(*((hand, 2) for hand in hands))
    assert verdicts(await world.ledger().commit(new_id(), [entry])) == {entry.order_id: "fenced"}
    tables = await world.tables()
    assert tables == dict.fromkeys(tables, 0) | {"batch": 1}
    assert [await world.lease(hand) for hand in (hands[0], hands[2])] == [(10, 0, "active")] * 2


async def test_commit_of_an_order_from_two_leases_of_a_sku_uses_both(world: World) -> None:
    await world.stock("TEA", 10)
    owner = await world.owner()
    one, other = await world.take(owner, "TEA", 4), await world.take(owner, "TEA", 6)
    assert await world.ledger().commit(new_id(), [draft((one, 4), (other, 1))]) == []
    assert [await world.lease(hand) for hand in (one, other)] == [(4, 4, "closed"), (6, 1, "active")]


async def test_commit_of_neighbours_of_a_fenced_order_stores_them(world: World) -> None:
    good, bad = await world.hand("GOOD"), await world.hand("BAD")
    await world.close_lease(bad)
    living, fenced = [draft((good, 1)) for _ in range(3)], [draft((bad, 1)) for _ in range(2)]
    refusals = await world.ledger().commit(new_id(), [*living, *fenced])
    assert verdicts(refusals) == {entry.order_id: "fenced" for entry in fenced}
    assert await world.order_ids() == {entry.order_id for entry in living}


async def test_commit_with_duplicate_fenced_and_new_orders_tells_them_apart(world: World) -> None:
    hand = await world.hand(units=10)
    ledger = world.ledger()
    await ledger.commit(new_id(), [draft(key=key_of(1))])
    duplicate, fenced, new = draft((NOBODY, 1), (hand, 9), key=key_of(1)), draft((NOBODY, 1)), draft((hand, 2))
    refusals = await ledger.commit(new_id(), [duplicate, fenced, new])
    assert verdicts(refusals) == {duplicate.order_id: "duplicate", fenced.order_id: "fenced"}
    assert await world.lease(hand) == (10, 2, "active")


async def test_commit_of_a_fenced_order_again_from_another_lease_stores_it(world: World) -> None:
    hand = await world.hand()
    ledger = world.ledger()
    fenced = draft((NOBODY, 1), key=key_of(1))
    await ledger.commit(new_id(), [fenced])
    again = draft((hand, 1), key=key_of(1), order_id=fenced.order_id)
    assert await ledger.commit(new_id(), [again]) == []
    assert await world.order_ids() == {fenced.order_id}


async def test_commit_of_a_batch_id_twice_is_refused_as_fenced(world: World) -> None:
    ledger, batch_id, first = world.ledger(), new_id(), draft()
    await ledger.commit(batch_id, [first])
    with pytest.raises(BatchFencedError):
        await ledger.commit(batch_id, [draft()])
    assert await world.order_ids() == {first.order_id}


async def test_commit_after_a_refused_batch_id_works_on(world: World) -> None:
    ledger, batch_id = world.ledger(), new_id()
    await ledger.commit(batch_id, [draft()])
    with pytest.raises(BatchFencedError):
        await ledger.commit(batch_id, [draft()])
    assert await ledger.commit(new_id(), [draft()]) == []


async def test_commit_batch_outside_of_read_committed_raises(world: World) -> None:
    async with world.pool.acquire() as connection:
        transaction = connection.transaction(isolation="repeatable_read")
        await transaction.start()
        with pytest.raises(Exception, match="READ COMMITTED"):
            await connection.fetch("select * from commit_batch(gen_random_uuid(), '{}', '{}', '{}', '{}', '{}', '{}')")
        await transaction.rollback()


async def test_ledger_on_a_server_that_may_lose_commits_refuses_to_open(world: World) -> None:
    name = await world.value("select current_database()")
    await world.pool.execute(f"alter database {name} set synchronous_commit = off")
    with pytest.raises(NotDurableError, match="synchronous_commit"):
        await world.ledger().ensure_open()
