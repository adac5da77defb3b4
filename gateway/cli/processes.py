"""The processes of a production deployment, one command each: migrate, serve, steward, projector. `up` runs the same
commands on one machine.

A setting that cannot be used ends the command with status 2, before anything is started.
"""

import asyncio
import os
import sys
from pathlib import Path

import click
from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops

from gateway import projector as projection
from gateway.app import open_secrets
from gateway.process import configure_logging, run
from gateway.settings import CONFIG_VARIABLE, Settings, SettingsError, load
from gateway.steward import Steward
from persistence.errors import LedgerUnavailableError, StreamUnavailableError
from persistence.nats.stream import Stream, StreamSettings
from persistence.postgres import migrate as schema

SETTINGS_ERROR = 2
KILL_TIMEOUT_S = 30  # a worker that has not ended this long after SIGTERM is killed
BACKLOG = 4096

config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The settings' file (floodgate.toml).",
)


def load_or_exit(config: Path | None, **flags: object) -> Settings:
    """The settings of a process; what cannot be used is said, and ends it with status 2."""
    try:
        settings = load(config, flags={key.replace("__", "."): value for key, value in flags.items()})
        _ensure_servers(settings)
    except SettingsError as error:
        click.echo(f"floodgate: {error}", err=True)
        sys.exit(SETTINGS_ERROR)
    configure_logging(settings.log)
    return settings


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


def _ensure_servers(settings: Settings) -> None:
    for key, url in (("postgres.url", settings.postgres.url), ("nats.url", settings.nats.url)):
        if not url:
            variable = f"FLOODGATE_{key.upper().replace('.', '__')}"
            raise SettingsError(
                f"{key} is not set: name the server ({variable}), or run `floodgate up`, which brings its own"
            )


async def _migrate(settings: Settings) -> tuple[str | None, str | None]:
    versions = await schema.upgrade(settings.postgres.url, settings.partitions.days, settings.partitions.ahead)
    stream = Stream(settings.nats.url, "floodgate-migrate", settings.nats.ack_timeout_ms / 1000)
    try:
        await stream.ensure_stream(
            StreamSettings(settings.nats.replicas, settings.nats.max_age_s, settings.nats.duplicate_window_s)
        )
    finally:
        await stream.close()
    return versions


@click.command()
@config_option
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on.")
def serve(config: Path | None, host: str | None, port: int | None) -> None:
    """Run a gateway: the HTTP edge and everything behind it."""
    settings = load_or_exit(config, http__host=host, http__port=port)
    try:
        open_secrets(settings.secrets)
    except SettingsError as error:
        click.echo(f"floodgate: {error}", err=True)
        sys.exit(SETTINGS_ERROR)
    if config is not None:
        os.environ[CONFIG_VARIABLE] = str(config.resolve())  # The worker reads its settings by itself.
    Granian(
        "gateway.app:create",
        factory=True,
        address=settings.http.host,
        port=settings.http.port,
        interface=Interfaces.ASGI,
        loop=Loops.uvloop,
        workers=1,
        http=HTTPModes.http1,
        websockets=False,
        backlog=BACKLOG,
        backpressure=settings.http.connections_max,
        respawn_failed_workers=True,
        workers_kill_timeout=KILL_TIMEOUT_S,
        log_enabled=False,
    ).serve()


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
