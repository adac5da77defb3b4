"""How often a client, and each of its customers, may ask: decided in this worker's memory, without waiting for anybody.

Every INTERVAL_S the worker tells Redis what it has let through and takes over what all workers together have, so the
rate of the whole holds in the long run, and only what the other workers let through within one interval can go beyond
it, which is paid back afterwards. With Redis away each worker holds the rates by itself; nobody is ever refused because
Redis is away. Customers stand in Redis as keyed hashes.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from gateway.domain.access import Client
from gateway.domain.gcra import SECOND_NS, Meter, Policy, policy_of
from gateway.domain.keys import Hasher
from gateway.domain.outcomes import Outcome, Refusal
from gateway.metrics import Counters
from gateway.settings import RateRule
from persistence.errors import MirrorUnavailableError
from persistence.redis.rates import Charge, RateStore

INTERVAL_S = 0.05
RATE_ROUTE = b"\x21"  # tells the hashes of customers from those of keys and of cursors
CLIENT, CUSTOMER = "client", "customer"  # the names of the policies
# Customers whose rate is in use. Beyond them those that were met longest ago are forgotten, a part of all at once:
# their rates start anew.
CUSTOMERS_MAX = 100_000
FORGOTTEN_AT_ONCE = CUSTOMERS_MAX // 8
LOOKED_AT_MAX = 1000  # customers, at each interval, whether they can be forgotten
CHARGES_MAX = 500  # of one call of Redis
# Of all calls of an exchange. A Redis that is too slow for what is charged is not told the rest: meanwhile more would
# be charged than it was told, and so on for ever.
EXCHANGE_NS_MAX = SECOND_NS // 2

Headers = list[tuple[bytes, bytes]]


class Subject(NamedTuple):
    """Who is limited: a client, or a customer of one."""

    client_id: int
    customer_id: str | None


class Allowance:
    """What one client may ask for, and each of its customers. Made by Rates."""

    def __init__(self, rates: "Rates", client_id: int, meter: Meter | None, of_customer: Policy | None) -> None:
        self._rates = rates
        self._client_id = client_id
        self._subject = Subject(client_id, None)
        self._meter = meter
        self._of_customer = of_customer
        policies = [meter.policy] if meter else []
        policies += [of_customer] if of_customer else []
        shown = ", ".join(f'"{policy.name}";q={policy.quota};w={policy.window_s}' for policy in policies)
        self._policy_header = (b"ratelimit-policy", shown.encode())

    def refusal(self) -> Refusal | None:
        """Charge the client one request, or say why not."""
        if self._meter is None:
            return None
        early_ns = self._rates.take(self._subject, self._meter)
        return self._rates.refused(self._meter.policy, early_ns) if early_ns else None

    def refusal_of(self, customer_id: str) -> Refusal | None:
        """Charge a customer one order, or say why not."""
        if self._of_customer is None:
            return None
        subject = Subject(self._client_id, customer_id)
        early_ns = self._rates.take(subject, self._rates.meter_of(subject, self._of_customer))
        return self._rates.refused(self._of_customer, early_ns) if early_ns else None

    def headers(self, outcome: Outcome | None = None) -> Headers:
        """RateLimit-Policy, and RateLimit for the policy that has refused, else for the client's. `r` is what may be
        asked for at once, `t` the seconds until it is one more.
        """
        if isinstance(outcome, Refusal) and outcome.code == "rate_limited":
            shown = b'"%b";r=0;t=%d' % (outcome.extra["violated_policies"][0].encode(), outcome.retry_after_s)
        elif self._meter is None:
            return [self._policy_header]
        else:
            shown = self._rates.standing(self._meter)
        return [self._policy_header, (b"ratelimit", shown)]


class Rates:
    """One per worker. `find_rule` gives the rule for a client's name; `apply` is called when it may give other ones.
    `store` None: there is no Redis. `now_ns` is a clock that does not step.
    """

    def __init__(
        self,
        find_rule: Callable[[str], RateRule | None],
        hasher: Hasher,
        store: RateStore | None,
        counters: Counters,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._find_rule = find_rule
        self._hasher = hasher
        self._store = store
        self._counters = counters
        self._now_ns = now_ns
        self._allowances: dict[int, Allowance | None] = {}
        self._clients: dict[int, Meter] = {}
        self._customers: dict[Subject, Meter] = {}
        self._charged: dict[Subject, Meter] = {}
        self.alone = False  # whether what was charged last has not been told to Redis

    def apply(self) -> None:
        """Look the rules up anew. A rate that stays the same goes on where it stands; another one starts anew."""
        self._allowances = {}

    def of(self, client: Client) -> Allowance | None:
        """None for a client without a rule."""
        try:
            return self._allowances[client.client_id]
        except KeyError:
            return self._look_up(client)

    async def run(self) -> None:
        """Exchange with Redis, and forget, until cancelled; then close the connection."""
        try:
            while True:
                await asyncio.sleep(INTERVAL_S)
                self._forget()
                await self.exchange()
        finally:
            if self._store is not None:
                await self._store.aclose()

    async def exchange(self) -> None:
        """Tell Redis what was charged since the last time, and hear what all have charged. What it does not take is not
        told again: meanwhile each worker has held the rate by itself, and their sum would have to be paid back.
        """
        charged, self._charged = [*self._charged.items()], {}
        until_ns = self._now_ns() + EXCHANGE_NS_MAX
        for start in range(0, len(charged), CHARGES_MAX):
            self.alone = not await self._tell(charged[start : start + CHARGES_MAX], until_ns)

    def take(self, subject: Subject, meter: Meter) -> int:
        """Charge one request. Returns 0, or how many nanoseconds it is too early."""
        early_ns = meter.try_take(self._now_ns())
        if not early_ns:
            self._charged[subject] = meter
        return early_ns

    def meter_of(self, subject: Subject, policy: Policy) -> Meter:
        """The meter of a customer."""
        meter = self._customers.get(subject)
        if meter is None or meter.policy != policy:
            if len(self._customers) >= CUSTOMERS_MAX:
                self._drop(list(islice(self._customers, FORGOTTEN_AT_ONCE)))
            meter = self._customers[subject] = Meter(policy)
        return meter

    def refused(self, policy: Policy, early_ns: int) -> Refusal:
        """Count and word a refusal. The client is told whole seconds, in which it is never too early."""
        if policy.name == CLIENT:
            self._counters.clients_limited += 1
        else:
            self._counters.customers_limited += 1
        return Refusal(
            "rate_limited",
            f"requests of a {policy.name}: {policy.quota} in {policy.window_s} s, {policy.burst} at once",
            extra={"violated_policies": [policy.name]},
            retry_after_s=_seconds(early_ns),
        )

    def standing(self, meter: Meter) -> bytes:
        """A client's place in its rate, as an item of the header RateLimit."""
        now_ns = self._now_ns()
        return b'"client";r=%d;t=%d' % (meter.left(now_ns), _seconds(meter.early_ns(now_ns)))

    def _look_up(self, client: Client) -> Allowance | None:
        rule = self._find_rule(client.name)
        allowance = None if rule is None else self._allowance(client.client_id, rule)
        self._allowances[client.client_id] = allowance
        return allowance

    def _allowance(self, client_id: int, rule: RateRule) -> Allowance | None:
        policy = policy_of(CLIENT, rule.requests_per_s, rule.burst)
        of_customer = policy_of(CUSTOMER, rule.customer_requests_per_s, rule.customer_burst)
        if policy is None and of_customer is None:
            return None
        meter = self._clients.pop(client_id, None)
        if policy is not None:
            meter = meter if meter is not None and meter.policy == policy else Meter(policy)
            self._clients[client_id] = meter
        return Allowance(self, client_id, meter if policy is not None else None, of_customer)

    def _forget(self) -> None:
        """Forget customers whose rate is as good as new. Those that were looked at are looked at again last."""
        now_ns = self._now_ns()
        looked_at = list(islice(self._customers.items(), LOOKED_AT_MAX))
        self._drop(subject for subject, _ in looked_at)
        self._customers.update((subject, meter) for subject, meter in looked_at if not meter.is_idle(now_ns))

    def _drop(self, subjects: Iterable[Subject]) -> None:
        for subject in subjects:
            del self._customers[subject]

    async def _tell(self, charged: Sequence[tuple[Subject, Meter]], until_ns: int) -> bool:
        """Whether Redis has counted everything."""
        asked_ns = self._now_ns()
        if self._store is None or asked_ns >= until_ns:
            for _, meter in charged:
                meter.tell()
            return False
        charges = [self._charge(subject, meter, asked_ns) for subject, meter in charged]
        try:
            ahead = await self._store.charge(charges)
        except MirrorUnavailableError:
            return False
        for (_, meter), ahead_us in zip(charged, ahead, strict=True):
            if ahead_us is not None:
                meter.merge(asked_ns + ahead_us * 1000)
        return None not in ahead

    def _charge(self, subject: Subject, meter: Meter, now_ns: int) -> Charge:
        """The charge of a meter, from then on told. A changed rate is counted under another key."""
        client_id, customer_id = subject
        policy, age_us = meter.policy, (now_ns - meter.since_ns) // 1000
        who = policy.mark if customer_id is None else policy.mark + customer_id.encode()
        key = self._hasher.key_hash(client_id, who, RATE_ROUTE)
        return Charge(key, meter.tell() // 1000, age_us, policy.ahead_us_max)


def _seconds(nanoseconds: int) -> int:
    """Whole seconds, rounded up."""
    return math.ceil(nanoseconds / SECOND_NS)
