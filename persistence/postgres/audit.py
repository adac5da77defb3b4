"""The audit of the ledger: what must hold between the tables, checked in one REPEATABLE READ snapshot. It reads; it
never repairs.

Each check is a query that returns the rows that are off; none off means that the check holds.
"""

import re
from dataclasses import dataclass
from importlib.resources import files

import asyncpg

from persistence.postgres.connect import connect

OFF_MAX = 10  # rows of a failed check that are shown

_HEADING = re.compile(r"^-- (?P<name>[a-z_]+): (?P<promise>.+)\n(?P<query>(?:(?!--).*\n)*?(?!--).*;)$", re.MULTILINE)
TOTALS = """
select (select count(*) from orders) as orders, (select count(*) from order_lines) as lines,
    (select coalesce(sum(quantity), 0)::bigint from order_lines) as units,
    (select coalesce(sum(total), 0)::bigint from orders) as value,
    (select count(*) from outbox) as outbox, (select count(*) from worker where state = 'alive') as owners
"""


@dataclass(frozen=True)
class Finding:
    """A check and what is off; `off` is empty when it holds, and `count` tells how many rows there are in all."""

    check: str
    promise: str
    count: int
    off: list[dict[str, object]]


@dataclass(frozen=True)
class Report:
    """`totals`: orders, lines, units, value (sum of totals, minor units), outbox (batches waiting), owners (alive)."""

    totals: dict[str, int]
    findings: list[Finding]

    @property
    def clean(self) -> bool:
        return not any(finding.count for finding in self.findings)


async def audit(url: str) -> Report:
    """Check every invariant that the ledger can show. Raises LedgerUnavailableError."""
    checks = _checks()
    connection = await connect(url, "fg-audit", 600.0, {"idle_in_transaction_session_timeout": "0"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            totals = dict(await connection.fetchrow(TOTALS))
            findings = [await _check(connection, *check) for check in checks]
    finally:
        await connection.close()
    return Report(totals, findings)


def _checks() -> list[tuple[str, str, str]]:
    """(name, promise, query) of every check in sql/audit.sql."""
    text = (files("persistence.postgres") / "sql" / "audit.sql").read_text()
    checks = [(found["name"], found["promise"], found["query"]) for found in _HEADING.finditer(text)]
    assert len(checks) == text.count(";\n"), "a check of audit.sql is not read"
    return checks


async def _check(connection: asyncpg.Connection, name: str, promise: str, query: str) -> Finding:
    rows = await connection.fetch(query)
    return Finding(name, promise, len(rows), [dict(row) for row in rows[:OFF_MAX]])
