"""Compares what the buyers were told with what is in the ledger. Pure: entries and rows in, a verdict out.

A request that was not answered may have had an effect, once; one that was answered holds. An order that somebody was
told of can never be refused again to who asks with its key.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bench.faults.history import Entry
from bench.faults.record import Verdict

SHOWN_MAX = 5  # keys in a line of the verdict


class Stored(NamedTuple):
    """An order of the ledger; `key` is that of its buyer."""

    key: str
    order_id: str
    status: str


class Told(NamedTuple):
    """What became of the buyers' requests for one key, in order."""

    answers: list[Entry]
    others: list[Entry]  # under the same key, with another body
    cancels: list[Entry]

    @property
    def acknowledged(self) -> bool:
        return any(one.what in ("ok", "receipt") for one in self.answers)

    @property
    def maybe(self) -> bool:
        """Whether an order may exist although nobody was told."""
        return any(one.what in ("unknown", "hung") or one.status >= 500 for one in self.answers)


def told(entries: Iterable[Entry]) -> dict[str, Told]:
    """By key; a request that was announced and never answered counts as unknown."""
    announced: dict[tuple[str, str, int], Entry] = {}
    by_key: dict[str, Told] = defaultdict(lambda: Told([], [], []))
    for entry in entries:
        place = (entry.key, entry.kind, entry.attempt)
        if entry.what == "invoke":
            announced[place] = entry
            continue
        announced.pop(place, None)
        _of_kind(by_key[entry.key], entry).append(entry)
    for (key, _, _), entry in announced.items():
        _of_kind(by_key[key], entry).append(Entry(entry.at, "unknown", key, entry.attempt, entry.kind))
    return dict(by_key)


def judge(entries: Sequence[Entry], stored: Sequence[Stored], spoilt: frozenset[str] = frozenset()) -> Verdict:
    """The verdict on the history of one row. `spoilt` are keys whose orders somebody has made unreadable on their way:
    an internal error is the right answer to those.
    """
    verdict = Verdict()
    rows: dict[str, list[Stored]] = defaultdict(list)
    for row in stored:
        rows[row.key].append(row)
    by_key = told(entries)
    checks = (
        ("lost", "acknowledged, and not in the ledger", _is_lost),
        ("lost", "cancelled, and not so in the ledger", _is_not_cancelled),
        ("lost", "acknowledged, and cancelled although nobody asked for it", _is_cancelled_by_nobody),
        ("doubled", "one key, several orders", _has_several),
        ("doubled", "told different things of one order", _was_told_differently),
        ("doubled", "refused after it was acknowledged", _was_refused_later),
        ("doubled", "refused alone, and in the ledger all the same", _is_there_though_refused),
        ("doubled", "taken with another body", _was_taken_with_another_body),
        ("hung", "no answer in time", _hung),
        ("hung", "asked until the end, and never knew", _never_knew),
    )
    for name, words, check in checks:
        keys = [key for key, one in by_key.items() if check(one, rows.get(key, []))]
        if keys:
            setattr(verdict, name, getattr(verdict, name) + len(keys))
            verdict.found.append(f"{len(keys)} {words}: {', '.join(keys[:SHOWN_MAX])}")
    verdict.found += _strange(by_key, rows, spoilt)
    return verdict


def acknowledged(entries: Iterable[Entry]) -> tuple[int, int]:
    """How many orders the buyers know of, and how many of those by a receipt alone."""
    by_key = told(entries)
    ids = sum(any(one.what == "ok" for one in key.answers) for key in by_key.values())
    known = sum(key.acknowledged for key in by_key.values())
    return known, known - ids


def _strange(by_key: dict[str, Told], rows: dict[str, list[Stored]], spoilt: frozenset[str]) -> list[str]:
    """What no invariant counts, and what is wrong all the same."""
    found = []
    internal = [key for key, one in by_key.items() if key not in spoilt and any(a.status == 500 for a in one.answers)]
    if internal:
        found.append(f"{len(internal)} answered with an internal error: {', '.join(internal[:SHOWN_MAX])}")
    strangers = [key for key in rows if key not in by_key]
    if strangers:
        found.append(f"{len(strangers)} orders in the ledger that nobody has asked for: {strangers[:SHOWN_MAX]}")
    return found


def _of_kind(one: Told, entry: Entry) -> list[Entry]:
    return {"order": one.answers, "other": one.others, "cancel": one.cancels}[entry.kind]


def _is_lost(one: Told, rows: list[Stored]) -> bool:
    ids = {row.order_id for row in rows}
    return any(a.what == "ok" and a.order_id not in ids for a in one.answers) or (one.acknowledged and not rows)


def _is_not_cancelled(one: Told, rows: list[Stored]) -> bool:
    return any(a.what == "ok" for a in one.cancels) and not any(row.status == "cancelled" for row in rows)


def _is_cancelled_by_nobody(one: Told, rows: list[Stored]) -> bool:
    """An order whose units are gone ends so; no fault of the matrix takes any away for good."""
    return one.acknowledged and not one.cancels and any(row.status == "cancelled" for row in rows)


def _has_several(_: Told, rows: list[Stored]) -> bool:
    return len(rows) > 1


def _was_told_differently(one: Told, _: list[Stored]) -> bool:
    said = {(a.order_id, a.digest) for a in one.answers if a.what == "ok"}
    return len(said) > 1


def _was_refused_later(one: Told, _: list[Stored]) -> bool:
    """With attempts that overlap, the one that was begun after the answer counts."""
    known = [a.attempt for a in one.answers if a.what in ("ok", "receipt")]
    final = [a.attempt for a in one.answers if a.what == "refused" and a.status < 500 and a.code != "key_in_flight"]
    return bool(known and final) and max(final) > min(known)


def _is_there_though_refused(one: Told, rows: list[Stored]) -> bool:
    return bool(rows) and bool(one.answers) and not one.acknowledged and not one.maybe


def _was_taken_with_another_body(one: Told, _: list[Stored]) -> bool:
    return any(a.what in ("ok", "receipt") for a in one.others)


def _hung(one: Told, _: list[Stored]) -> bool:
    return any(a.what == "hung" for a in (*one.answers, *one.others, *one.cancels))


def _never_knew(one: Told, _: list[Stored]) -> bool:
    last = max(one.answers, key=lambda a: a.at, default=None)
    return last is not None and not one.acknowledged and (last.what == "unknown" or last.status >= 500)
