"""What bounds of single settings cannot say: settings that contradict one another, addresses of another kind of
server, and rules that will never count.

A contradiction keeps a process from starting. A doubt is only said: the settings can be used, and are perhaps not what
was meant. Settings are looked up by key, so nothing of ours is imported.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from gateway.settings_errors import HIDDEN, Fault, without_password

Lookup = Callable[[str], Any]  # key -> value

SCHEMES = {
    "postgres.url": ("postgresql",),
    "redis.url": ("redis", "rediss"),
    "nats.url": ("nats", "tls"),
}
BURST_S_MAX = 86_400  # in which a burst of a rate has to come back
HEARTBEATS_MIN = 2  # within the time-out of an owner
OPENED = re.compile(r"\[[^\]]*$")
SETS = re.compile(r"[\[\]]")


class Pair(NamedTuple):
    """`low` times `factor` must not be above `high`."""

    low: str
    factor: int
    high: str
    why: str


PAIRS = (
    Pair("owner.heartbeat_ms", HEARTBEATS_MIN, "owner.timeout_ms", "an owner that loses a heartbeat would be dead"),
    Pair("nats.duplicate_window_s", 1, "nats.max_age_s", "NATS forgets an event's id with the event"),
)
# (what waits, what a commit takes of it)
QUEUES = (("batch.queue_bytes_max", "batch.bytes_max"), ("batch.queue_rows_max", "batch.rows_max"))

# (rules, what their pattern is of)
PATTERNS = {"stock.rule": "sku", "limits.rule": "sku", "limits.rate": "client", "orders.rule": "channel"}


def contradictions(value: Lookup) -> Iterator[Fault]:
    """What no process may start with."""
    for key, schemes in SCHEMES.items():
        yield from _address_faults(key, value(key), schemes)
    for low, factor, high, why in PAIRS:
        if value(low) * factor > value(high):
            times = f"{factor} times " if factor > 1 else ""
            wanted = f"has to be at least {times}{low} ({value(low)}), since {why}"
            yield Fault(tuple(high.split(".")), "out_of_range", wanted, value(high))
    for number, rule in enumerate(value("limits.rate")):
        for part in ("", "customer_"):
            yield from _rate_faults(rule, number, part)


def doubts(value: Lookup) -> Iterator[str]:
    """What can be used, and is perhaps not meant."""
    for key, of in PATTERNS.items():
        yield from _pattern_doubts(key, [getattr(rule, of) for rule in value(key)])
    if value("stock.park_ms_max") > value("orders.reply_ms_max"):
        yield (
            f"stock.park_ms_max ({value('stock.park_ms_max')}) is above orders.reply_ms_max"
            f" ({value('orders.reply_ms_max')}): a buyer waits longer for stock than for the ledger"
        )
    for queue, commit in QUEUES:
        if value(queue) < value(commit):
            yield f"{queue} ({value(queue)}) is below {commit} ({value(commit)}): no commit will ever be that large"


def _address_faults(key: str, address: str, schemes: Sequence[str]) -> Iterator[Fault]:
    """After the first, PostgreSQL and NATS take further servers, with or without the scheme."""
    first, *others = (one.partition("://") for one in address.split(","))
    wrong = [rest for scheme, found, rest in (first, *others) if found and (scheme.strip() not in schemes or not rest)]
    if address and (wrong or not first[1]):
        shown = without_password(address) if first[1] else HIDDEN  # Without a scheme it may be a password.
        yield Fault(tuple(key.split(".")), "bad_format", f"has to be like {schemes[0]}://HOST:PORT (or empty)", shown)


def _rate_faults(rule: Any, number: int, part: str) -> Iterator[Fault]:
    """Of the half of a rate that is the client's, or of that of its customers."""
    per_s, burst = getattr(rule, f"{part}requests_per_s"), getattr(rule, f"{part}burst")
    at = ("limits", "rate", number)
    if burst and not per_s:
        yield Fault((*at, f"{part}burst"), "out_of_range", f"has to stand beside {part}requests_per_s", burst)
    elif per_s and max(burst, 1) / per_s > BURST_S_MAX:
        wanted = f"has to bring a burst of {max(burst, 1)} back within a day"
        yield Fault((*at, f"{part}requests_per_s"), "out_of_range", wanted, per_s)


def _pattern_doubts(key: str, patterns: Sequence[str]) -> Iterator[str]:
    for number, pattern in enumerate(patterns):
        if OPENED.search(pattern):
            yield f"{key}[{number}]: {pattern} has a [ without a ], which stands for itself"
        if pattern != pattern.strip():
            yield f"{key}[{number}]: {pattern!r} begins or ends with a space"
        for earlier, other in enumerate(patterns[:number]):
            if other == pattern or _takes_all(other, pattern):
                yield f"{key}[{number}] ({pattern}) never counts: {key}[{earlier}] ({other}) matches first"
                break


def _takes_all(wide: str, narrow: str) -> bool:
    """Whether the first pattern surely matches whatever the second does; sets are not looked into."""
    return wide == "*" or (not SETS.search(wide + narrow) and "?" not in wide and fnmatchcase(narrow, wide))
