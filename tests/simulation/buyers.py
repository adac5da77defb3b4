"""The buyers, who are outside of the system: each wants one thing, asks for it under one key until the answer is final,
now here and now there, and remembers every answer. What they remember must never contradict itself or the ledger.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from gateway.admission import Request
from gateway.domain.outcomes import Accepted, Outcome, Receipt, Refusal
from tests.simulation import expiry_functions
from tests.simulation.books import Asked
from tests.simulation.parts import HASHER, SHOP

if TYPE_CHECKING:
    from tests.simulation.worker import Worker
    from tests.simulation.world import World

FINAL = frozenset({"sold_out", "limit_reached"})
ON_ITS_WAY_S = 2.0  # what was said to be sold out is believed for a second, and may have been late
AGAIN = frozenset({"ledger_away", "stock_returning", "overloaded", "key_in_flight"})
_encode = msgspec.json.Encoder().encode


class Buyer:
    """One who wants `units` (by SKU). `expected` is the answer that he has to get, if that is known."""

    def __init__(
        self, world: "World", name: str, customer: str, units: Mapping[str, int], expected: str | None = None
    ) -> None:
        self.world = world
        self.name = name
        self.key = name.encode()
        self.units = dict(units)
        self.body = _encode(
            {
                "channel": "app",
                "currency": "CNY",
                "customer_id": customer,
                "items": [{"sku": sku, "quantity": wanted} for sku, wanted in units.items()],
            }
        )
        self.key_hash = HASHER.key_hash(SHOP.client_id, self.key)
        self.answers: list[str] = []
        self.is_final = False
        self._expected = expected
        self._tries = 0
        self._last: Worker | None = None
        self._order_id: bytes | None = None
        self._has_receipt = self._has_paid = False
        self._refused = ""
        self._trusts = "wary" not in world.traits and world.draw() < 0.5  # whether a receipt is good enough for him
        demand = sorted(units.items())
        limited = [(sku, wanted) for sku, wanted in demand if sku in world.limited]
        world.books.asked[HASHER.fingerprint(self.body)] = Asked(demand, customer, limited)

    def send(self) -> None:
        """Ask, and again elsewhere when there is no answer for long."""
        if self.is_final:
            return
        self._tries += 1
        world, worker = self.world, self.world.pick(self._last)
        world.books.asked_at_s.setdefault(self.key_hash, (world.loop.now, world.books.clock_s))
        self._last = worker
        world.note(self.name, "asks", worker.process.name, self.units, f"({self._tries})")
        call = Try(self, self._tries, Request(SHOP, self.key, self.body))
        loop = world.loop
        loop.call_later(0.0002 + 0.001 * world.draw(), worker.receive, call, context=worker.process.context)
        loop.call_later(world.random.choice((0.6, 1.2, 2.5)), self._give_up, self._tries, context=loop.base)

    def answered(self, call: "Try", outcome: Outcome) -> None:
        """Any answer counts, also one that comes when nobody waits any more."""
        world = self.world
        if isinstance(outcome, Refusal):
            word = outcome.code
        else:
            word = "accepted" if isinstance(outcome, Accepted) else "receipt"
        world.note(self.name, "is told", word, f"({call.number})")
        world.answers[word] += 1
        self.answers.append(word)
        match outcome:
            case Accepted():
                self._check_accepted(outcome)
                if not self.is_final:
                    self._pay_later(outcome.order_id)
                self.is_final = True
            case Receipt():
                self._has_receipt = True
                if self._trusts:
                    self.is_final = True
                else:
                    self._again(0.5)
            case Refusal() if outcome.code in FINAL:
                self._check_refused(outcome, call)
                self._refused, self.is_final = outcome.code, True
            case Refusal() if outcome.code in AGAIN or (outcome.code == "internal" and call.is_of_leaving):
                if call.number == self._tries:
                    self._again(0.1)
            case _:
                world.fail(f"{self.name} is told {outcome}")
        if word in {"accepted", *FINAL} and self._expected not in {None, word}:
            world.fail(f"I2: {self.name} wants {self.units} and is told {word}, not {self._expected}")

    def check_end(self) -> None:
        """After all: what was promised is there."""
        stored = self.world.books.keys.get(self.key_hash)
        if self._order_id is not None and (stored is None or stored.order_id != self._order_id):
            self.world.fail(f"I3: {self.name} was told of an order that is not in the ledger")
        if self._has_paid and (stored is None or stored.status != "paid"):
            self.world.fail(f"I6: {self.name} has paid for an order that has expired")
        if self._has_receipt and stored is None:
            self.world.fail(f"I3: {self.name} has a receipt, and the ledger nothing")
        # Where units come back, another try of his may have had more luck.
        if self._refused and stored is not None and not self.world.expires:
            self.world.fail(f"I4: {self.name} was told {self._refused} and has an order all the same")

    def _pay_later(self, order_id: bytes) -> None:
        """Half of them pay, some of these too late. Who knows what he has to get pays at once."""
        world = self.world
        if not world.expires:
            return
        if self._expected is not None:
            self._pay(order_id)
        elif world.draw() < 0.5:
            world.later(1.2 * world.books.payment_s * world.draw(), lambda: self._pay(order_id))

    def _pay(self, order_id: bytes) -> None:
        self._has_paid = expiry_functions.pay(self.world.books, order_id)
        self.world.note(self.name, "pays", "in time" if self._has_paid else "too late")

    def _check_accepted(self, outcome: Accepted) -> None:
        world = self.world
        stored = world.books.keys.get(self.key_hash)
        if stored is None or stored.order_id != outcome.order_id:
            world.fail(f"I3: {self.name} is told of an order that is not in the ledger")
        if self._order_id not in {None, outcome.order_id}:
            world.fail(f"I4: {self.name} is told of two orders under one key")
        self._order_id = outcome.order_id

    def _check_refused(self, refusal: Refusal, call: "Try") -> None:
        world = self.world
        # Where units come back, another try of his may have had more luck while this one was under way.
        if call.was_known or (self._order_id is not None and not world.expires):
            world.fail(f"I4: {self.name} has an order and is told {refusal.code}")
        elif self._has_receipt:
            world.fail(f"I3: {self.name} has a receipt and is told {refusal.code}")
        if refusal.code == "sold_out" and all(
            units <= self._was_there(sku, call.asked_at_s) for sku, units in self.units.items()
        ):
            world.fail(f"{self.name} wants {self.units}, which is there, and is told sold_out")

    def _was_there(self, sku: str, asked_at_s: float) -> int:
        """Units that nobody had in all the time since he asked: what he is told may be what was so before others came
        back.
        """
        books = self.world.books
        since_s = asked_at_s - ON_ITS_WAY_S
        came_back = sum(units for at_s, returned, units in books.returned if at_s > since_s and returned == sku)
        return books.total[sku] - books.held[sku] - came_back

    def _again(self, pause_s: float) -> None:
        world = self.world
        if not self.is_final:
            world.loop.call_later(pause_s * (0.5 + world.draw()), self.send, context=world.loop.base)

    def _give_up(self, number: int) -> None:
        if number == self._tries and not self.is_final:
            self.send()


class Try:
    """A request of a buyer's. `was_known`: its key belonged to an order already when it came to the worker, which was
    at no other request with it; `is_of_leaving`: the worker was on its way out when it answered.
    """

    __slots__ = ("asked_at_s", "buyer", "is_of_leaving", "number", "request", "was_known")

    def __init__(self, buyer: Buyer, number: int, request: Request) -> None:
        self.buyer = buyer
        self.number = number
        self.request = request
        self.asked_at_s = buyer.world.loop.now
        self.was_known = self.is_of_leaving = False
