"""`floodgate doctor`: looks for what keeps Floodgate from running well on this machine, and with the servers that the
settings name. It changes nothing, and goes on after a fault, to find the others.

The checks are small functions in machine.py, storage.py and servers.py; here they are put together and told.
"""

import asyncio
import importlib
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click

from deploy.local.folder import DataFolder
from gateway.cli import address, terminal
from gateway.cli.doctor import machine, servers, storage
from gateway.cli.doctor.report import FAULT, OK, WARNING, Check, fault, ok
from gateway.cli.examples import examples
from gateway.settings import CONFIG_VARIABLE, Loaded, Settings, SettingsError, load_with_origins

COLOURS = {OK: "green", WARNING: "yellow", FAULT: "red"}


class Patient(NamedTuple):
    """What is looked at: the data folder, the settings with the origins of their values, and the record of the local
    system when one runs.
    """

    folder: DataFolder
    loaded: Loaded
    config: Path | None
    record: dict[str, Any]

    def url(self, server: str) -> str:
        """What the settings name, else the local system's server; empty when that does not run."""
        named: str = getattr(self.loaded.settings, server).url
        return named or str(self.record.get(server) or "")


@examples("floodgate doctor", "floodgate doctor --json --config floodgate.toml")
@click.command()
@address.json_option
@address.servers_options
def doctor(data: Path, config: Path | None, *, as_json: bool) -> None:
    """Look for what keeps Floodgate from running well here.

    Compiler and compiled modules, port, disk, memory, limits and clocks of this machine, the data folder with its
    secrets, and the servers: the local system's, or those that the settings name. Each warning and each fault has its
    remedy. Exits 1 when there is a fault.
    """
    found = address.run(_examine(data, config))
    if as_json:
        terminal.say_json({"healthy": _is_healthy(found), "checks": [check._asdict() for check in found]})
    else:
        _say(found)
    if not _is_healthy(found):
        sys.exit(1)


async def _examine(data: Path, config: Path | None) -> list[Check]:
    settings, loaded = _settings(config)
    folder = DataFolder(data)
    record = folder.run() if folder.holder() is not None else {}
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if CONFIG_VARIABLE in os.environ else None)
    patient = Patient(folder, loaded, named, record)
    checks = [*settings, *_of_machine(patient), *_of_folder(patient)]
    of_servers = await asyncio.gather(_of_postgres(patient), _of_redis(patient), _of_nats(patient))
    return [*checks, *(check for some in of_servers for check in some)]


def _settings(config: Path | None) -> tuple[list[Check], Loaded]:
    """What is wrong with the settings, and what goes on in their place."""
    try:
        loaded = load_with_origins(config)
        _open_keys(loaded.settings)
    except SettingsError as error:
        remedy = "Mend it; `floodgate config check` says whether that worked."
        return [fault("settings", str(error), remedy)], Loaded(Settings(), {})
    named = len(loaded.origins)
    return [ok("settings", f"can be used; {named} of them are named by file or environment")], loaded


def _open_keys(settings: Settings) -> None:
    """Raises SettingsError for keys that cannot be used. Without the compiled modules that cannot be told."""
    if not (settings.secrets.master_keys or settings.secrets.hash_key):
        return
    try:
        application = importlib.import_module("gateway.app")
    except ImportError:  # The check of the modules says so.
        return
    application.open_secrets(settings.secrets)


def _of_machine(patient: Patient) -> list[Check]:
    http = patient.loaded.settings.http
    return [
        machine.compiler(),
        machine.headers(),
        machine.modules(),
        machine.port(http.port, http.host, patient.record.get("http")),
        machine.files(http.connections_max),
        machine.backlog(),
        machine.migration(),
        machine.memory(http.workers),
        machine.ticking(),
    ]


def _of_folder(patient: Patient) -> list[Check]:
    path, secrets = patient.folder.path, patient.loaded.settings.secrets
    return [
        storage.ownership(path),
        *storage.room(path),
        storage.syncing(path),
        *([] if secrets.master_keys else [storage.secrets(patient.folder)]),
        storage.token(patient.folder.token),
        storage.settings_file(patient.config, patient.loaded.origins),
    ]


async def _of_postgres(patient: Patient) -> list[Check]:
    url = patient.url("postgres")
    return await servers.postgres(url, patient.loaded.settings) if url else [servers.embedded_postgres()]


async def _of_redis(patient: Patient) -> list[Check]:
    url = patient.url("redis")
    return [await servers.redis(url) if url else servers.embedded_valkey()]


async def _of_nats(patient: Patient) -> list[Check]:
    url = patient.url("nats")
    return [await servers.nats(url) if url else servers.embedded_nats()]


def _is_healthy(found: list[Check]) -> bool:
    return all(check.status != FAULT for check in found)


def _say(found: list[Check]) -> None:
    width = max(len(check.name) for check in found)
    for check in found:
        mark = click.style(check.status.ljust(7), fg=COLOURS[check.status])
        click.echo(f"{mark}  {check.name.ljust(width)}  {_indented(check.said, width)}")
        if check.remedy:
            click.echo(f"{' ' * (width + 11)}{_indented(check.remedy, width)}")
    count = {status: sum(check.status == status for check in found) for status in COLOURS}
    click.echo(f"\n{count[FAULT]} faults, {count[WARNING]} warnings, {count[OK]} checks are ok.")


def _indented(text: str, width: int) -> str:
    return text.replace("\n", f"\n{' ' * (width + 11)}")
