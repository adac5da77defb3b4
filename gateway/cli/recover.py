"""`floodgate recover`: after PostgreSQL was restored from a backup, takes back from the streams what the ledger does
not know.

It refuses while a gateway or a steward works on the ledger. Exit status 1 when something is left that somebody has to
look at; what cannot come back is said in any case.
"""

import asyncio
import datetime as dt
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.cli import terminal
from gateway.cli.examples import examples
from gateway.cli.refusals import told
from gateway.cli.starting import config_option, load_or_exit
from gateway.domain.stock_keys import SEPARATOR
from gateway.recovery import Report
from gateway.recovery import recover as take_back
from persistence.postgres.recovery import StillRunningError

SHOWN_MAX = 20  # orders and SKUs that are named


class Instant(click.ParamType[dt.datetime]):
    """RFC 3339; without an offset it is UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dt.datetime:
        try:
            found = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value}: it has to be like 2026-11-11T00:00:00Z", param, ctx)
        return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


@examples("floodgate recover --dry-run", "floodgate recover --since 2026-11-11T00:00:00Z --json")
@click.command()
@config_option
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option(
    "--since",
    type=Instant(),
    metavar="TIME",
    help="Read the streams from then on, such as 2026-11-11T00:00:00Z."
    "  [default: from 10 minutes before the ledger's newest order]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recover(config: Path | None, since: dt.datetime | None, *, dry_run: bool, as_json: bool) -> None:
    """Take back from the streams what a restored ledger does not know.

    Run it after PostgreSQL was restored from a backup, `floodgate migrate` has been run, and before any gateway or
    steward is started. It may be stopped and run again. Exits 1 when somebody has to look at what is left.
    """
    settings = load_or_exit(config)
    try:
        with told():
            report = asyncio.run(take_back(settings, since, _say_progress, dry_run=dry_run))
    except StillRunningError as error:
        raise click.ClickException(f"stop every gateway and steward first: {error}") from error
    if as_json:
        terminal.say_json({"whole": report.whole, **msgspec.to_builtins(report, enc_hook=vars)})
    else:
        _say(report)
    if not report.whole:
        sys.exit(1)


def _say_progress(events: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{events:,} events read", nl=False, err=True)


def _say(report: Report) -> None:
    done = report.done
    since = "their beginning" if report.since is None else report.since.isoformat(timespec="seconds")
    would = "It would be:" if report.dry_run else "The ledger has now:"
    click.echo(f"{report.events:,} events read, from {since} on; {done.known:,} versions were known. {would}")
    terminal.say_table(("what", "taken back"), _rows(report))
    _say_lost(report)
    _say_left(report)


def _rows(report: Report) -> list[tuple[str, int]]:
    done = report.done
    return [
        ("orders", done.orders),
        ("lines", done.lines),
        ("further changes of orders", done.changes),
        ("units held by them", done.units_held),
        ("units that cancelled ones gave back", done.units_released),
        ("units from leases of gateways that are gone", report.units_unleased),
        ("keys", done.keys),
        ("clients, without scopes and tokens", len(done.clients)),
        ("levels of stock", report.levels),
        ("products", report.products),
    ]


def _say_lost(report: Report) -> None:
    """What no stream carries."""
    done = report.done
    click.echo("\nNot in the streams, and not back:")
    click.echo(f"  names, addresses and notes of {done.orders:,} orders, as far as they had any")
    click.echo("  what was changed after the backup of stock totals, sales, live settings, clients and tokens")
    if report.keys_of_nothing:
        click.echo(f"  what {report.keys_of_nothing:,} keys of personal data opened: they are removed")
    if done.orders_without_key:
        click.echo(f"  keys of {done.orders_without_key:,} orders: a retry of one of them would be a new order")
    if done.orders_guessed:
        click.echo(f"  which lines of {done.orders_guessed:,} orders hold units: taken from the catalogue, no limits")
    for name, client_id in done.clients:
        click.echo(f"  scopes, channels and tokens of the client {name} (id {client_id})")
    if report.sales_missing:
        click.echo(f"  the sales {', '.join(report.sales_missing[:SHOWN_MAX])}")


def _say_left(report: Report) -> None:
    """What somebody has to look at."""
    owed = {key: units for key, units in report.done.owed.items() if units > 0}
    if owed:
        click.echo(f"\nSold and not there, owed to buyers: {sum(owed.values()):,} units of {len(owed):,} SKUs.")
        click.echo("Where the stock was raised after the backup, raise it again: what is owed is settled first.")
        shown = sorted(owed.items(), key=lambda found: -found[1])[:SHOWN_MAX]
        terminal.say_table(("SKU", "owed"), [(key.replace(SEPARATOR, " / "), units) for key, units in shown])
    if report.done.keys_taken:
        click.echo(
            f"\n{report.done.keys_taken:,} keys belong to other orders by now: their buyers tried again before this was"
            " run, and have two orders."
        )
    if report.begins_late:
        click.echo(
            f"\nThe stream begins at {report.begins_late.isoformat(timespec='seconds')}, after the newest order of the"
            " backup: orders from between are lost unless a newer backup has them."
        )
    if report.empty:
        click.echo(
            "\nThe stream has no event of the backup's newest order, nor of any later one: was NATS lost, too? What was"
            " placed and changed after the backup is lost unless a newer backup has it."
        )
    if report.unreadable:
        click.echo(f"\n{report.unreadable:,} events cannot be read by this release: run the newest one.")
    if report.inexact:
        click.echo(f"\n{report.inexact:,} events will not be encoded to the same bytes again.")
    if report.incomplete:
        click.echo(
            f"\n{len(report.incomplete):,} orders lack a version that the stream does not have, and stay as they are:"
        )
        click.echo(f"  {', '.join(report.incomplete[:SHOWN_MAX])}")
    for finding in report.off or ():
        click.echo(f"\nThe audit finds {finding.check} off in {finding.count:,} rows: {finding.promise}")
    if report.off == []:
        click.echo("\nThe books balance.")
