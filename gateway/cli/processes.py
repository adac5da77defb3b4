"""The processes of a production deployment beside the gateway, one command each: migrate, steward, projector. `up` runs
the same commands on one machine.

A setting that cannot be used ends the command with status 2, before anything is started.
"""

import asyncio
from pathlib import Path

import click

from gateway import live
from gateway import projector as projection
from gateway.cli.starting import config_option, load_or_exit
from gateway.process import run
from gateway.settings import Settings
from gateway.steward import Steward
from persistence.errors import LedgerUnavailableError, StreamUnavailableError
from persistence.nats.stream import Stream, StreamSettings
from persistence.postgres import migrate as schema


@click.command()
@config_option
def migrate(config: Path | None) -> None:
    """Bring the ledger's schema, its partitions and the event stream up to date. Safe to run again, and from several
    places at once.
    """
    settings = load_or_exit(config)
    try:
        before, after = asyncio.run(_migrate(settings))
    except (LedgerUnavailableError, StreamUnavailableError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"The ledger's schema is at {after}."
        if before == after
        else f"The ledger's schema went from {before or 'nothing'} to {after}."
    )


async def _migrate(settings: Settings) -> tuple[str | None, str | None]:
    versions = await schema.upgrade(settings.postgres.url, settings.partitions.days, settings.partitions.ahead)
    await live.seed(settings)
    stream = Stream(settings.nats.url, "floodgate-migrate", settings.nats.ack_timeout_ms / 1000)
    try:
        await stream.ensure_streams(
            StreamSettings(settings.nats.replicas, settings.nats.max_age_s, settings.nats.duplicate_window_s)
        )
    finally:
        await stream.close()
    return versions


@click.command()
@config_option
def steward(config: Path | None) -> None:
    """Run a steward: partitions, leases of the dead, the event relay, housekeeping. Any number may run."""
    settings = load_or_exit(config)
    run(Steward(settings).run)


@click.command()
@config_option
def projector(config: Path | None) -> None:
    """Run a projector: keeps the read models up to date from the events. Any number may run."""
    settings = load_or_exit(config)
    run(lambda stop: projection.run(settings, stop))
