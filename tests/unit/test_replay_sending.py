"""Sending a channel's orders: in file order, each under its key, every answer counted in its place."""

from collections import Counter
from collections.abc import Callable

import msgspec
import pytest

from gateway.channels.feed import Sale
from gateway.cli.edge import Answer, EdgeError
from gateway.cli.sending import Result, send

CREATED = Answer(201, {}, b"{}")
REPLAYED = Answer(201, {"Idempotency-Replayed": "true"}, b"{}")
RECEIPT = Answer(202, {}, b"{}")


def refusal(status: int, code: str) -> Answer:
    return Answer(status, {}, msgspec.json.encode({"code": code, "detail": "because"}))


def sale(number: int) -> Sale:
    return Sale(f"shop:{number}", {"external_id": str(number)}, 2, 5, 700)


class FakeEdge:
    """Answers by number of the order."""

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self._answer = answer
        self.asked: list[tuple[str, str, str]] = []

    async def ask(
        self, method: str, path: str, document: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        key = (headers or {})["Idempotency-Key"]
        assert document == {"external_id": key.removeprefix("shop:")}
        self.asked.append((method, path, key))
        return self._answer(key)


async def run(edge: FakeEdge, count: int) -> Result:
    result = Result()
    async for _ in send(edge, [sale(number) for number in range(count)], result):
        pass
    return result


async def test_send_orders_go_in_file_order_under_their_keys() -> None:
    edge = FakeEdge(lambda _: CREATED)

    await run(edge, 3)

    assert edge.asked == [("POST", "/v1/orders", f"shop:{number}") for number in range(3)]


async def test_send_new_orders_are_accepted_with_their_lines_units_and_value() -> None:
    result = await run(FakeEdge(lambda _: CREATED), 3)

    assert (result.accepted, result.lines, result.units, result.value) == (3, 6, 15, 2100)


async def test_send_receipt_of_the_journal_counts_as_accepted() -> None:
    assert (await run(FakeEdge(lambda _: RECEIPT), 1)).accepted == 1


async def test_send_replayed_orders_are_counted_apart() -> None:
    result = await run(FakeEdge(lambda _: REPLAYED), 2)

    assert (result.accepted, result.replayed, result.units) == (0, 2, 0)


async def test_send_refusals_are_counted_by_code_and_the_rest_goes_on() -> None:
    answers = {"shop:0": refusal(422, "invalid"), "shop:1": refusal(409, "sold_out"), "shop:2": CREATED}

    result = await run(FakeEdge(lambda key: answers[key]), 3)

    assert (result.accepted, result.refused) == (1, 2)
    assert result.refused_by_code == Counter(invalid=1, sold_out=1)


@pytest.mark.parametrize("status", [301, 404, 405, 415])
async def test_send_answer_of_something_else_ends_the_run(status: int) -> None:
    edge = FakeEdge(lambda _: Answer(status, {}, b"<html>"))

    with pytest.raises(EdgeError, match="was not understood"):
        await run(edge, 2)
    assert len(edge.asked) == 1


async def test_send_order_without_answer_ends_the_run_and_keeps_the_counts() -> None:
    def answer(key: str) -> Answer:
        if key == "shop:1":
            raise EdgeError("no answer")
        return CREATED

    result = Result()
    edge = FakeEdge(answer)
    with pytest.raises(EdgeError):
        async for _ in send(edge, [sale(number) for number in range(3)], result):
            pass

    assert (result.accepted, len(edge.asked)) == (1, 2)


async def test_send_with_rate_waits_for_each_order_s_turn() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async for _ in send(FakeEdge(lambda _: CREATED), [sale(number) for number in range(4)], Result(), 0.001, sleep):
        pass

    assert [round(wait, -3) for wait in waits] == [0, 1000, 2000, 3000]
