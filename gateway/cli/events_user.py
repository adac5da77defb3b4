"""`floodgate events user TEAM`: a user of NATS for a team that consumes events. It may read its own durables and
acknowledge, and nothing else.

On the local system the user is let in at once; for a server of one's own its configuration is printed.
"""

import asyncio
import os
import re
import secrets
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import click

from deploy.local.folder import DataFolder
from deploy.local.nats_config import DOMAIN, EXPORTS, USER, Durable, Team, team_account
from deploy.local.servers import NatsServer
from gateway.cli import address, terminal
from gateway.cli.examples import examples
from gateway.cli.local import load_or_exit
from persistence.errors import StreamUnavailableError
from persistence.nats.durable import can_read, ensure_durable
from persistence.nats.stream import SUBJECTS

TEAM = re.compile(r"[a-z][a-z0-9-]{0,30}")
# No dash in the name: TEAM-NAME then belongs to one team alone, whatever others are called.
DURABLE = re.compile(r"([a-z][a-z0-9_]{0,30})=((orders|stock)(\.[a-z0-9_*-]+)*(\.[a-z0-9_*-]+|\.>))")
DEFAULT = ("orders=orders.>", "stock=stock.>")
PASSWORD_BYTES = 24
LET_IN_TRIES = 20
LET_IN_PAUSE_S = 0.25
PLACEHOLDER = "FLOODGATE"


class Local(NamedTuple):
    """The NATS of a local system that runs."""

    server: NatsServer
    pid: int


@examples(
    "floodgate events user finance",
    "floodgate events user finance --durable sales=orders.created.>",
    "floodgate events user finance --json",
)
@click.command()
@click.argument("team")
@click.option(
    "--durable",
    "durables",
    multiple=True,
    metavar="NAME=SUBJECT",
    help=f"A durable consumer TEAM-NAME for these events; may be repeated.  [a new team: {', '.join(DEFAULT)}]",
)
@address.json_option
@address.servers_options
def user(team: str, durables: tuple[str, ...], data: Path, config: Path | None, *, as_json: bool) -> None:
    """Make a user of NATS for a team that may only read.

    Its address is printed. It may read from its durables and acknowledge, and nothing else. Run again it prints the
    same, with the durables that are new.
    """
    if not TEAM.fullmatch(team) or team == USER:
        raise click.UsageError(f"{team}: a team is called like finance-2, and not {USER}, as Floodgate's own user is")
    wanted = tuple(_durable(team, text) for text in durables)
    url = address.stream_url(data, config)
    local = None if load_or_exit(config).nats.url else _local(data, url)
    known = local.server.teams().get(team) if local else None
    known = known or Team(team, secrets.token_urlsafe(PASSWORD_BYTES), ())
    first = () if known.durables or wanted else tuple(_durable(team, text) for text in DEFAULT)
    made = known._replace(durables=_together(known.durables, (*wanted, *first)))
    address.run(_make(made, url, local))
    shown = _address(url, made)
    if as_json:
        named = [durable._asdict() for durable in made.durables]
        terminal.say_json({"team": team, "url": shown, "domain": DOMAIN, "durables": named})
    else:
        _say(made, shown)
    if local is None:
        _say_configuration(made)


def _durable(team: str, text: str) -> Durable:
    found = DURABLE.fullmatch(text)
    if found is None:
        raise click.UsageError(f"--durable {text}: it has to be like sales=orders.created.>")
    stream = next(name for name, (subject,) in SUBJECTS.items() if subject.startswith(f"{found[3]}."))
    return Durable(stream, f"{team}-{found[1]}", found[2])


def _together(known: Sequence[Durable], wanted: Sequence[Durable]) -> tuple[Durable, ...]:
    """Each durable once: NATS does not start on a configuration that names one twice."""
    found: dict[tuple[str, str], Durable] = {}
    for durable in (*known, *wanted):
        there = found.setdefault(durable[:2], durable)
        if there != durable:
            raise click.UsageError(f"--durable {durable.name} is there for {there.subject}: take another name")
    return tuple(found.values())


def _local(data: Path, url: str) -> Local | None:
    """The embedded server; None: the local system runs on somebody else's."""
    folder, parts = DataFolder(data), urlsplit(url)
    pid = folder.run()["pids"].get(NatsServer.kind)
    if pid is None:
        return None
    server = NatsServer(folder.nats, port=parts.port or 0, secret=parts.password or "", log_path=folder.log("nats"))
    return Local(server, pid)


async def _make(team: Team, url: str, local: Local | None) -> None:
    for durable in team.durables:
        await ensure_durable(url, *durable)
    if local is None:
        return
    local.server.put_team(team)
    local.server.configure()
    # nats-server 2.15.1 takes up the imports of a new account at the second reload only.
    for _ in range(LET_IN_TRIES):
        os.kill(local.pid, signal.SIGHUP)
        await asyncio.sleep(LET_IN_PAUSE_S)
        if await _is_let_in(team, _address(url, team)):
            return
    raise StreamUnavailableError(f"NATS does not let {team.name} in: see {local.server.log_path}")


async def _is_let_in(team: Team, url: str) -> bool:
    for stream, durable, _ in team.durables:
        if not await can_read(url, DOMAIN, stream, durable):
            return False
    return True


def _address(url: str, team: Team) -> str:
    """The team's own address of the server; of several servers of a cluster, each."""
    hosts = [urlsplit(server.strip()) for server in url.split(",")]
    return ",".join(f"{part.scheme}://{team.name}:{team.password}@{part.netloc.rpartition('@')[2]}" for part in hosts)


def _say(team: Team, url: str) -> None:
    click.echo(f"URL:     {url}")
    click.echo(f"Domain:  {DOMAIN}  (of JetStream, which a client has to name)")
    terminal.say_table(("durable", "stream", "subject"), [(d.name, d.stream, d.subject) for d in team.durables])


def _say_configuration(team: Team) -> None:
    """To standard error, so that the answer alone can be piped."""
    block = "\n".join(f"  {line}" for line in team_account(team, PLACEHOLDER))
    exported = "\n".join(f"      {line}" for line in EXPORTS)
    click.echo(
        f"\nThe durables are there. Let the user in by the configuration of NATS, with your account for {PLACEHOLDER},"
        f" and keep the password: it is shown this once.\n\naccounts {{\n  # in the account that has the streams:\n"
        f"  #   exports: [\n{_commented(exported)}\n  #   ]\n{block}\n}}",
        err=True,
    )


def _commented(text: str) -> str:
    return "\n".join(f"  #   {line.strip()}" for line in text.splitlines())
