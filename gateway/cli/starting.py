"""What every command that is one process of a production deployment does first: its settings, whole and usable, or the
end with status 2 before anything is started. Light: it must never import what serves.
"""

import sys
from pathlib import Path

import click

from gateway.process import configure_logging
from gateway.settings import Settings, SettingsError, load
from gateway.workers import SETTINGS_STATUS

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
        sys.exit(SETTINGS_STATUS)
    configure_logging(settings.log)
    return settings


def _ensure_servers(settings: Settings) -> None:
    for key, url in (("postgres.url", settings.postgres.url), ("nats.url", settings.nats.url)):
        if not url:
            variable = f"FLOODGATE_{key.upper().replace('.', '__')}"
            raise SettingsError(
                f"{key} is not set: name the server ({variable}), or run `floodgate up`, which brings its own"
            )
