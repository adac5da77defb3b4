"""`floodgate journal …`: the journals of this host and of all others, as the ledger knows them; and giving up one whose
disk is lost, which only a human being may decide.
"""

import sys
from pathlib import Path
from typing import Any

import click

from deploy.local.folder import DataFolder
from gateway.cli import address, terminal
from gateway.cli.examples import examples
from gateway.cli.local import load_or_exit
from persistence.journal import JournalError, Peeked, kept, peek, read_quarantine
from persistence.postgres import journals
from persistence.postgres.connect import connect
from persistence.postgres.journals import Named
from persistence.postgres.session import Session

HOME = 0  # the shard that units go back to


@examples("floodgate journal list", "floodgate journal abandon 0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9")
@click.group()
def journal() -> None:
    """Show journals, and give up one whose disk is lost.

    While the ledger is away a worker takes orders into a journal on its disk. When the ledger is back they become rows;
    a journal whose worker has died is adopted by the next worker of its host.
    """


@examples(
    "floodgate journal list",
    "floodgate journal list --json | jq '.owners[] | select(.silent_s > 60)'",
)
@journal.command("list")
@address.json_option
@address.servers_options
def list_journals(data: Path, config: Path | None, *, as_json: bool) -> None:
    """Show owners with journals, and the files of this host."""
    owners = address.run(_named(address.ledger_url(data, config)))
    files, aside = _files(_folder(data, config))
    if as_json:
        terminal.say_json(
            {"owners": [_shown(owner) for owner in owners], "files": [_file(file) for file in files], "aside": aside}
        )
        return
    terminal.say_table(
        ("owner", "host", "silent", "orders", "units in hand"),
        [(one.owner, one.host, f"{one.silent_s:.0f} s", one.records, one.units) for one in owners],
    )
    if files:
        click.echo("\nJournals of this host:")
        terminal.say_table(
            ("file", "held", "orders", "bytes", "damages"),
            [
                (file.path.name, "yes" if file.locked else "no", file.records, file.size, len(file.damaged))
                for file in files
            ],
        )
    if aside:
        click.echo("\nSet aside, for you to look at:")
        terminal.say_table(("file", "record", "why"), [(one["file"], one["record"], one["why"]) for one in aside])


@examples(
    "floodgate journal abandon 0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9",
    "floodgate journal abandon 0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9 --yes",
)
@journal.command()
@click.argument("owner")
@click.option("--yes", is_flag=True, help="Do not ask.")
@address.servers_options
def abandon(data: Path, config: Path | None, owner: str, *, yes: bool) -> None:
    """Give up a journal whose disk is lost.

    What its owner had in hand is for sale again.
    Orders in it that were acknowledged with 202 are lost, unless the disk comes back. Then they are taken up, with
    other units if there are any, and else cancelled.
    """
    url = address.ledger_url(data, config)
    found = next((one for one in address.run(_named(url)) if one.owner == owner), None)
    if found is None:
        raise click.ClickException(f"no owner {owner} has a journal: `floodgate journal list` shows those that do")
    click.echo(f"owner      {found.owner}, on {found.host}: {found.journal}")
    click.echo(f"last seen  {found.seen_at:%Y-%m-%d %H:%M:%S} UTC, {found.silent_s:.0f} s ago")
    click.echo(f"in hand    {found.units} units in {found.leases} leases: no more than these can be in lost orders")
    click.echo(f"journal    {found.records} orders when it was last heard of")
    if not yes:
        click.confirm("Orders in this journal may be lost. Is its disk gone for good?", abort=True)
    units = address.run(_abandon(url, owner))
    click.echo(f"{units} units are for sale again.")


def _folder(data: Path, config: Path | None) -> Path:
    named = load_or_exit(config).journal.folder
    return Path(named) if named else DataFolder(data).journal


async def _named(url: str) -> list[Named]:
    connection = await connect(url, "fg-journal")
    try:
        return await journals.named(connection)
    finally:
        await connection.close()


async def _abandon(url: str, owner: str) -> int:
    session = Session(url, "fg-journal")
    try:
        await journals.end_committer(session, owner)
        return await journals.bury(session, owner, HOME)
    finally:
        await session.close()


def _files(folder: Path) -> tuple[list[Peeked], list[dict[str, Any]]]:
    try:
        return peek(folder), [entry for path in kept(folder) for entry in _aside(path)]
    except JournalError as error:
        click.echo(f"floodgate: {error}", err=True)
        sys.exit(1)


def _aside(path: Path) -> list[dict[str, Any]]:
    """What was set aside in a file: its records with their reasons, or the file as it is."""
    try:
        found = read_quarantine(path)
    except JournalError as error:
        return [{"file": path.name, "record": None, "why": str(error)}]
    return [{"file": path.name, "record": one.record.sequence, "why": one.reason} for one in found]


def _shown(owner: Named) -> dict[str, Any]:
    return owner._asdict() | {"seen_at": owner.seen_at.isoformat()}


def _file(file: Peeked) -> dict[str, Any]:
    damaged = [{"offset": one.offset, "bytes": one.bytes} for one in file.damaged]
    return file._asdict() | {"path": str(file.path), "damaged": damaged}
