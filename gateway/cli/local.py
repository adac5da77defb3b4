"""The options that name a local system (`--data DIR`) and a settings file (`--config FILE`), the same everywhere.

A mistake in the settings is printed and exits 2, whatever the command.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from deploy.local.folder import default_folder
from gateway import settings
from gateway.settings import Settings, SettingsError


class UnusableSettings(click.ClickException):
    """No restart mends it: `up` does not try again after this exit status."""

    exit_code = 2


Command = TypeVar("Command", bound=Callable[..., Any])


def data_option(command: Command) -> Command:
    """`--data DIR`, passed as `data: Path`."""
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        default=default_folder,
        help="Folder of the local system.  [default: $FLOODGATE_DATA, else a folder in your data home]",
    )(command)


def config_option(command: Command) -> Command:
    """`--config FILE`, passed as `config: Path | None`."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        help="Settings file (floodgate.toml).",
    )(command)


def load_or_exit(config: Path | None, flags: dict[str, Any] | None = None) -> Settings:
    """The settings; a mistake in them is printed and exits 2."""
    try:
        return settings.load(config, flags=flags)
    except SettingsError as error:
        raise UnusableSettings(str(error)) from error
