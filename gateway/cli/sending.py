"""Sends the orders of a channel's file through the edge, one after the other in file order, and counts the answers.

Every order goes under its own key, so sending the file again changes nothing: what was accepted is replayed. A
refusal is an answer and is counted; an order without an answer ends the run, because the next ones must not overtake
it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

import msgspec

from gateway.channels.feed import Sale
from gateway.cli.edge import Answer, EdgeError, Sleep

ORDERS = "/v1/orders"
# Refusals of the whole way of asking, not of one order: every other order would get the same.
MISDIRECTED = frozenset({301, 302, 303, 307, 308, 404, 405, 415})


class Asks(Protocol):
    """What this needs of an Edge."""

    async def ask(
        self, method: str, path: str, document: object = ..., headers: dict[str, str] | None = ...
    ) -> Answer: ...


class Result(msgspec.Struct):
    """`lines`, `units` and `value` (minor units) are those of the orders accepted in this run."""

    accepted: int = 0
    replayed: int = 0
    refused: int = 0
    refused_by_code: Counter[str] = msgspec.field(default_factory=Counter)
    cancellations: int = 0
    adjustments: int = 0
    lines: int = 0
    units: int = 0
    value: int = 0
    seconds: float = 0.0

    def count(self, sale: Sale, answer: Answer) -> None:
        if not answer.ok:
            self.refused += 1
            self.refused_by_code[answer.code] += 1
        elif answer.headers.get("Idempotency-Replayed"):
            self.replayed += 1
        else:
            self.accepted += 1
            self.lines += sale.lines
            self.units += sale.units
            self.value += sale.value


async def send(
    edge: Asks, sales: Iterable[Sale], result: Result, rate: float | None = None, sleep: Sleep = asyncio.sleep
) -> AsyncIterator[Sale]:
    """Send the orders, at most `rate` a second, and count into `result`; yields each once it has its answer.

    Raises EdgeError when an order gets none, or when the answers show that this is no gateway.
    """
    started = time.monotonic()
    for number, sale in enumerate(sales):
        if rate is not None:
            await sleep(started + number / rate - time.monotonic())
        answer = await edge.ask("POST", ORDERS, sale.order, {"Idempotency-Key": sale.key})
        if answer.status in MISDIRECTED:
            raise EdgeError(f"the order {sale.key} was not understood: {answer.complaint}")
        result.count(sale, answer)
        result.seconds = round(time.monotonic() - started, 3)
        yield sale
