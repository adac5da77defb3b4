"""`floodgate config`: what the settings are, where each comes from, and the versions of the live ones in the ledger.

A file speaks for the whole of the live sections: what it does not name goes to its default, as it would at the first
start. Nothing is written unless the version that the change was compared with is still in force.
"""

import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import click
import msgspec

from gateway.app import open_secrets
from gateway.cli import address, settings_text, terminal
from gateway.cli.examples import examples
from gateway.cli.local import UnusableSettings, config_option, load_or_exit
from gateway.live import document_of, read_document
from gateway.settings import (
    LIVE,
    Loaded,
    Settings,
    SettingsError,
    differences,
    is_live,
    load_with_origins,
    value_of,
    with_live,
)
from gateway.settings_sense import doubts
from persistence.postgres import live_settings
from persistence.postgres.connect import connect
from persistence.postgres.live_settings import HISTORY_MAX, Version

CONNECTION_NAME = "fg-cli"

file_type = click.Path(exists=True, dir_okay=False, path_type=Path)
reason_option = click.option("--reason", default=None, help="Kept with the version.")


class Plan(NamedTuple):
    """What a file would change: `live` keys at once, `restart` keys where processes are started again with it."""

    version: int
    before: Settings
    after: Settings
    live: list[str]
    restart: list[str]

    @property
    def is_in_force(self) -> bool:
        return self.version > 0 and not self.live


@examples(
    "floodgate config show --origin",
    "floodgate config diff floodgate.toml",
)
@click.group("config")
def configuration() -> None:
    """Show and change settings.

    Start settings are read once, by each process at its start. Live ones (the sections stock and limits, and
    journal.mode) stand in the ledger in versions; every process follows the newest within a second.
    """


@examples(
    "floodgate config check",
    "floodgate config check floodgate.toml --json",
)
@configuration.command()
@click.argument("file", type=file_type, required=False)
@address.json_option
@config_option
def check(file: Path | None, config: Path | None, *, as_json: bool) -> None:
    """Check settings: FILE, or what a process would read here.

    With the environment, as a process would. Types and bounds, addresses, secrets and their files, and settings that
    contradict one another: exits 2 and says why when they cannot be used. What can be used and is perhaps not meant,
    such as a rule that never counts, is said as a warning.
    """
    loaded = _loaded(file or config)
    try:
        if loaded.settings.secrets.master_keys or loaded.settings.secrets.hash_key:
            open_secrets(loaded.settings.secrets)
    except SettingsError as error:
        raise UnusableSettings(str(error)) from error
    doubted = [*doubts(partial(value_of, loaded.settings))]
    if as_json:
        terminal.say_json({"usable": True, "named": len(loaded.origins), "warnings": doubted})
        return
    _say_doubts(doubted)
    click.echo(f"The settings can be used; {len(loaded.origins):,} of them are named by file or environment.")


@examples(
    "floodgate config show --origin",
    "floodgate config show --json | jq '.items[].setting'",
)
@configuration.command()
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@address.json_option
@address.servers_options
def show(data: Path, config: Path | None, *, origin: bool, as_json: bool) -> None:
    """Show every setting. Live ones are those of the ledger, unless it cannot be asked."""
    stored = _stored_or_note(data, config, loaded := _loaded(config))
    if stored is not None:
        loaded = _in_force(loaded, stored)
    found = settings_text.shown(*loaded)
    if as_json:
        terminal.say_json({"version": stored and stored.version, "items": [one._asdict() for one in found]})
        return
    heads = ("setting", "value", "origin")
    width = 3 if origin else 2
    terminal.say_table(heads[:width], [row[:width] for row in settings_text.rows(found)])


@examples("floodgate config diff floodgate.toml")
@configuration.command()
@click.argument("file", type=file_type)
@address.json_option
@address.servers_options
def diff(file: Path, data: Path, config: Path | None, *, as_json: bool) -> None:
    """Show what `apply FILE` would change."""
    plan = address.run(_plan(address.ledger_url(data, config), file, config))
    if as_json:
        terminal.say_json(_as_json(plan, plan.version))
    else:
        _say_changes(plan)
        if plan.is_in_force:
            click.echo(f"Live settings: version {plan.version} is what {file} says.")
        elif not plan.live:
            click.echo(f"Live settings: the ledger has no version yet; `config apply {file}` makes the first one.")
        _say_restart(plan, file)


@examples('floodgate config apply floodgate.toml --reason "sale of the 11th"')
@configuration.command()
@click.argument("file", type=file_type)
@reason_option
@address.json_option
@address.servers_options
def apply(file: Path, reason: str | None, data: Path, config: Path | None, *, as_json: bool) -> None:
    """Make the live sections of FILE the next version. What FILE does not name goes to its default."""
    plan, version = address.run(_apply(address.ledger_url(data, config), file, config, reason))
    if as_json:
        terminal.say_json(_as_json(plan, version))
        return
    _say_doubts([*doubts(partial(value_of, plan.after))])
    _say_changes(plan)
    click.echo(
        f"Nothing changes: version {version} is what {file} says."
        if version == plan.version
        else f"Version {version} is in force; every process follows within a second."
    )
    _say_restart(plan, file)


@examples(
    "floodgate config history",
    "floodgate config history --limit 5 --json",
)
@configuration.command()
@click.option("--limit", type=click.IntRange(1, HISTORY_MAX), default=50, show_default=True, help="Versions shown.")
@address.json_option
@address.servers_options
def history(limit: int, data: Path, config: Path | None, *, as_json: bool) -> None:
    """List the versions of the live settings, newest first."""
    found = address.run(_history(address.ledger_url(data, config), limit))
    if as_json:
        items = [one._asdict() | {"document": msgspec.Raw(one.document.encode())} for one in found]
        terminal.say_json({"items": items})
        return
    rows = [(str(one.version), f"{one.at:%Y-%m-%d %H:%M:%SZ}", one.actor, one.reason) for one in found]
    terminal.say_table(("version", "at", "actor", "reason"), rows)


@examples(
    "floodgate config rollback 3",
    'floodgate config rollback 3 --reason "back to what worked"',
)
@configuration.command()
@click.argument("version", type=click.IntRange(min=1))
@reason_option
@address.json_option
@address.servers_options
def rollback(version: int, reason: str | None, data: Path, config: Path | None, *, as_json: bool) -> None:
    """Make the content of an old VERSION the next version."""
    reason = reason or f"rollback to version {version}"
    written = address.run(_rollback(address.ledger_url(data, config), version, reason))
    if as_json:
        terminal.say_json({"version": written, "content_of": version})
    else:
        click.echo(f"Version {written} is in force, with the content of version {version}.")


@asynccontextmanager
async def _ledger(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(url, CONNECTION_NAME)
    try:
        yield connection
    finally:
        await connection.close()


async def _current(url: str) -> Version | None:
    async with _ledger(url) as connection:
        return (await live_settings.current(connection))[1]


async def _history(url: str, limit: int) -> list[Version]:
    async with _ledger(url) as connection:
        return await live_settings.history(connection, limit)


async def _plan(url: str, file: Path, config: Path | None) -> Plan:
    return _compared(await _current(url), file, config)


async def _apply(url: str, file: Path, config: Path | None, reason: str | None) -> tuple[Plan, int]:
    """What changes, and the version that is then in force."""
    async with _ledger(url) as connection:
        plan = _compared((await live_settings.current(connection))[1], file, config)
        if plan.is_in_force:
            return plan, plan.version
        version = await live_settings.apply(connection, document_of(plan.after), _actor(), reason, plan.version)
        return plan, _written(version)


async def _rollback(url: str, version: int, reason: str) -> int:
    async with _ledger(url) as connection:
        _, now = await live_settings.current(connection)
        old = await live_settings.fetch(connection, version)
        if now is None or old is None:
            raise click.ClickException(f"there is no version {version}; `floodgate config history` lists them")
        _read(old)
        if now.document == old.document:
            raise click.ClickException(f"version {now.version} is in force and has that content already")
        return _written(await live_settings.rollback(connection, version, _actor(), reason, now.version))


def _written(version: int | None) -> int:
    if version is None:
        raise click.ClickException(
            "somebody has written another version meanwhile, and nothing was changed:"
            " look at `floodgate config history` and `diff`, then try again"
        )
    return version


def _loaded(config: Path | None) -> Loaded:
    try:
        return load_with_origins(config)
    except SettingsError as error:
        raise UnusableSettings(str(error)) from error


def _read(stored: Version) -> Settings:
    try:
        return read_document(stored.document)
    except SettingsError as error:
        raise click.ClickException(
            f"version {stored.version} was written by another release of floodgate: {error}"
        ) from error


def _in_force(loaded: Loaded, stored: Version) -> Loaded:
    """The process's own settings with the live ones of the ledger."""
    ledger = _read(stored)
    origin = f"ledger version {stored.version}"
    origins = {f"{section}.{name}": origin for section, names in LIVE.items() for name in names}
    return Loaded(with_live(loaded.settings, ledger), loaded.origins | origins)


def _compared(stored: Version | None, file: Path, config: Path | None) -> Plan:
    """The file alone against what is in force, which for start settings is what a process would read here."""
    own = Loaded(load_or_exit(config), {})
    before = (own if stored is None else _in_force(own, stored)).settings
    try:
        after, named = load_with_origins(file, {})
    except SettingsError as error:
        raise UnusableSettings(str(error)) from error
    differing = differences(before, after)
    return Plan(
        stored.version if stored else 0,
        before,
        after,
        [key for key in differing if is_live(key)],
        [key for key in differing if key in named and not is_live(key)],
    )


def _stored_or_note(data: Path, config: Path | None, loaded: Loaded) -> Version | None:
    """The version in force; where the ledger cannot be asked that is said beside the answer, since the settings that
    tell why are what is looked for.
    """
    try:
        return address.run(_current(loaded.settings.postgres.url or address.ledger_url(data, config)))
    except click.ClickException as error:
        click.echo(f"floodgate: live settings are shown as file and environment say: {error.message}", err=True)
        return None


def _actor() -> str:
    """Who runs this command; an account need not have a name."""
    try:
        return f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"user:{os.getuid()}"


def _as_json(plan: Plan, version: int) -> dict[str, Any]:
    return {
        "version": version,
        "changes": settings_text.changes(plan.before, plan.after, plan.live),
        "restart": settings_text.changes(plan.before, plan.after, plan.restart),
    }


def _say_changes(plan: Plan) -> None:
    for line in settings_text.changed_lines(plan.before, plan.after, plan.live):
        click.echo(line)


def _say_doubts(doubted: list[str]) -> None:
    for doubt in doubted:
        click.echo(f"warning: {doubt}", err=True)


def _say_restart(plan: Plan, file: Path) -> None:
    if plan.restart:
        click.echo(f"Start settings: these take effect where a process is started again with {file}:")
    for line in settings_text.changed_lines(plan.before, plan.after, plan.restart):
        click.echo(line)
