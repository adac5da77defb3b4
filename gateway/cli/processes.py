"""The processes of a production deployment beside the gateway, one command each: migrate, steward, projector. `up` runs
the same commands on one machine.

A setting that cannot be used ends the command with status 2, before anything is started.
"""

import asyncio
import sys
from pathlib import Path

import click

from gateway import live
from gateway import projector as projection
from gateway.cli.examples import examples
from gateway.cli.refusals import told
from gateway.cli.starting import config_option, load_or_exit
from gateway.process import run, spare_the_collector
from gateway.settings import Settings
from gateway.steward import Steward
from gateway.stream_watch import stream_settings
from persistence.nats.stream import Stream
from persistence.postgres import migrate as schema


@examples("floodgate migrate --config floodgate.toml", "floodgate migrate --check")
@click.command()
@config_option
@click.option("--check", is_flag=True, help="Change nothing; exit 1 when something is missing.")
def migrate(config: Path | None, *, check: bool) -> None:
    """Bring the ledger's schema, its partitions and the event streams up to date, while orders flow. Safe to run again,
    and from several places at once.
    """
    settings = load_or_exit(config)
    with told():
        if check:
            _say_missing(*asyncio.run(_missing(settings)))
        else:
            _say_done(*asyncio.run(_migrate(settings)))


def _say_done(before: str | None, after: str | None) -> None:
    for step in schema.revisions(before, after):
        click.echo(f"{step.number}  {step.title}")
    click.echo(
        f"The ledger's schema is at {after}."
        if before == after
        else f"The ledger's schema went from {before or 'nothing'} to {after}."
    )
    click.echo("Partitions lie ahead, and the streams are as the settings say.")


def _say_missing(steps: list[schema.Revision], tables: list[str], streams: list[str]) -> None:
    for step in steps:
        click.echo(f"missing: {step.number}  {step.title}")
    for table in tables:
        click.echo(f"missing: partitions of {table}")
    for fault in streams:
        click.echo(f"missing: {fault}")
    if steps or tables or streams:
        sys.exit(1)
    click.echo("Nothing is missing.")


async def _missing(settings: Settings) -> tuple[list[schema.Revision], list[str], list[str]]:
    steps, tables = await schema.missing(settings.postgres.url, settings.partitions.days, settings.partitions.ahead)
    stream = Stream(settings.nats.url, "floodgate-migrate", settings.nats.ack_timeout_ms / 1000)
    try:
        return steps, tables, await stream.faults(stream_settings(settings.nats))
    finally:
        await stream.close()


async def _migrate(settings: Settings) -> tuple[str | None, str | None]:
    versions = await schema.upgrade(settings.postgres.url, settings.partitions.days, settings.partitions.ahead)
    await live.seed(settings)
    stream = Stream(settings.nats.url, "floodgate-migrate", settings.nats.ack_timeout_ms / 1000)
    try:
        await stream.ensure_streams(stream_settings(settings.nats))
    finally:
        await stream.close()
    return versions


@examples("floodgate steward --config floodgate.toml")
@click.command()
@config_option
def steward(config: Path | None) -> None:
    """Run a steward: partitions, leases of the dead, the event relay, housekeeping. Any number may run."""
    settings = load_or_exit(config)
    run(Steward(settings).run)


@examples("floodgate projector --config floodgate.toml")
@click.command()
@config_option
def projector(config: Path | None) -> None:
    """Run a projector: keeps the read models up to date from the events. Any number may run."""
    settings = load_or_exit(config)
    spare_the_collector()
    run(lambda stop: projection.run(settings, stop))
