"""`floodgate audit`: checks what must hold between the ledgers, in one snapshot, while orders flow.

It reads and never repairs. Exit status 1 when something is off; what is off is shown.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import click

from gateway.cli import address, terminal
from gateway.cli.examples import examples
from persistence.postgres.audit import Finding, Report
from persistence.postgres.audit import audit as check


@examples(
    "floodgate audit",
    "floodgate audit --json | jq .clean",
)
@click.command()
@address.json_option
@address.servers_options
def audit(data: Path, config: Path | None, *, as_json: bool) -> None:
    """Check that the books balance. Exits 1 when something is off."""
    report = address.run(check(address.ledger_url(data, config)))
    if as_json:
        terminal.say_json({"clean": report.clean, **asdict(report)})
    else:
        _say(report)
    if not report.clean:
        sys.exit(1)


def _say(report: Report) -> None:
    terminal.say_table(list(report.totals), [list(report.totals.values())])
    click.echo()
    terminal.say_table(("check", "off", "what must hold"), [(f.check, f.count, f.promise) for f in report.findings])
    for finding in report.findings:
        _say_off(finding)
    click.echo()
    off = sum(1 for finding in report.findings if finding.count)
    click.echo("The books balance." if report.clean else f"{off} of {len(report.findings)} checks are off.")


def _say_off(finding: Finding) -> None:
    if not finding.count:
        return
    click.echo()
    click.echo(f"{finding.check}: {len(finding.off)} of {finding.count} rows that are off")
    terminal.say_table(list(finding.off[0]), [list(row.values()) for row in finding.off])
