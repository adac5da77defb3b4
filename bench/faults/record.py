"""The record of a run of the fault matrix, as `--json` writes it."""

from typing import Literal

import msgspec

Status = Literal["passed", "failed", "not_run"]


class Verdict(msgspec.Struct):
    """What was found off after a row, in numbers of orders, units, events or requests; `found` says each in
    words.

    `lost`: acknowledged orders that are not in the ledger, changes whose event is not in the stream. `oversold`: units.
    `stranded`: unsold units that nobody can buy. `doubled`: keys with two orders, retries that were told something
    else, events of nothing. `hung`: requests without an answer in time, buyers who never knew.
    """

    lost: int = 0
    oversold: int = 0
    stranded: int = 0
    doubled: int = 0
    hung: int = 0
    found: list[str] = msgspec.field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.oversold or self.stranded or self.doubled or self.hung or self.found)

    def add(self, other: "Verdict") -> None:
        for name in ("lost", "oversold", "stranded", "doubled", "hung"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.found += other.found


class RowResult(msgspec.Struct, omit_defaults=False):
    """A row of the matrix. `recover_s` is the longest time from the end of a fault to the next acknowledged order;
    `silent_s`, of a row in which orders go on, the longest time without one from before a fault to its end.
    """

    row: int
    name: str
    how: str
    status: Status
    injections: int = 0
    acknowledged: int = 0
    receipts: int = 0
    lost: int = 0
    oversold: int = 0
    stranded: int = 0
    doubled: int = 0
    hung: int = 0
    recover_s: float | None = None
    silent_s: float | None = None
    reason: str | None = None
    found: list[str] = msgspec.field(default_factory=list)
    logs: str | None = None


class Soak(msgspec.Struct):
    """`right_within_1_s` is the share of the first requests of orders that got their right answer within a second."""

    seconds: int
    faults: int
    requests: int
    right_within_1_s: float
    verdict: Verdict


class Mutation(msgspec.Struct):
    """A guard that was taken away, and the row or the seed of the simulation that noticed; None: nobody did."""

    guard: str
    caught_by: str | None


class Matrix(msgspec.Struct):
    """A whole run. `mutations` are those of a run of all rows, from the project's own folder."""

    seed: int
    environment: dict[str, str]
    times: dict[str, float]
    rows: list[RowResult] = msgspec.field(default_factory=list)
    mutations: list[Mutation] = msgspec.field(default_factory=list)
    soak: Soak | None = None

    @property
    def failed(self) -> bool:
        rows = any(row.status == "failed" for row in self.rows)
        unnoticed = any(mutation.caught_by is None for mutation in self.mutations)
        return rows or unnoticed or (self.soak is not None and not self.soak.verdict.clean)
