"""Which system a command talks to, and how its errors end: with one line that says what to do, and exit status 1.

The ledger and the stream: what the settings name, else the local system on `--data DIR`. The HTTP edge: `--url` with
`--token-file`, else the local system's. A token of the local system is never sent to an address that somebody named.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import structlog
from structlog.typing import EventDict, Processor

from deploy.local.edge import read_token
from deploy.local.folder import DataFolder
from gateway.cli.edge import EdgeError
from gateway.cli.local import Command, config_option, data_option, load_or_exit
from gateway.cli.refusals import told
from persistence.postgres.clients import ClientError

URL_VARIABLE = "FLOODGATE_URL"
TOKEN_FILE_VARIABLE = "FLOODGATE_TOKEN_FILE"  # noqa: S105 - the name of a variable

Result = TypeVar("Result")

json_option: Callable[[Command], Command] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class EdgeAddress(NamedTuple):
    url: str
    token: str


def servers_options(command: Command) -> Command:
    """`--data` and `--config`, for a command that talks to the ledger or the stream."""
    return data_option(config_option(command))


def edge_options(command: Command) -> Command:
    """`--url`, `--token-file` and `--data`, for a command that talks to the HTTP edge."""
    url = click.option(
        "--url", envvar=URL_VARIABLE, default=None, help="Address of the gateway.  [default: the local one]"
    )
    token_file = click.option(
        "--token-file",
        envvar=TOKEN_FILE_VARIABLE,
        type=click.Path(dir_okay=False, path_type=Path),
        default=None,
        help="File with the bearer token.  [default: the local system's]",
    )
    return url(token_file(data_option(command)))


def ledger_url(data: Path, config: Path | None) -> str:
    """The address of PostgreSQL."""
    return load_or_exit(config).postgres.url or _local(data, "postgres")


def stream_url(data: Path, config: Path | None) -> str:
    """The address of NATS."""
    return load_or_exit(config).nats.url or _local(data, "nats")


def edge_address(url: str | None, token_file: Path | None, data: Path) -> EdgeAddress:
    """The gateway and the token to show it."""
    if url and not url.startswith(("http://", "https://")):
        raise click.ClickException(f"{url} is no address of a gateway: it has to be like http://127.0.0.1:8080")
    if url and not token_file:
        raise click.ClickException(f"{url} needs a token: name its file with --token-file, or in {TOKEN_FILE_VARIABLE}")
    found = url or _local(data, "http")
    file = token_file or DataFolder(data).token
    token = read_token(file)
    if not token:
        raise click.ClickException(
            f"there is no token in {file}:"
            " `floodgate client add NAME --scope all --channel '*' --token-file FILE` makes one"
        )
    return EdgeAddress(found.rstrip("/"), token)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a command's work; what can go wrong outside of it becomes a message."""
    # Standard output belongs to the answer; the stream is looked up anew for each line.
    structlog.configure(
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
        processors=[_once(), structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(colors=False)],
    )
    try:
        with told():
            return asyncio.run(work)
    except (EdgeError, ClientError) as error:
        raise click.ClickException(str(error)) from error


def _once() -> Processor:
    """Leaves out a line that was said before: what is tried again and again fails in the same way."""
    said: set[tuple[object, object]] = set()

    def processor(_logger: Any, _method: str, event: EventDict) -> EventDict:
        line = (event["event"], event.get("error"))
        if line in said:
            raise structlog.DropEvent
        said.add(line)
        return event

    return processor


def _local(data: Path, server: str) -> str:
    folder = DataFolder(data)
    address = folder.run().get(server)
    if folder.holder() is None or not address:
        raise click.ClickException(
            f"nothing runs on {folder.path}: start it with `floodgate up`, name its folder with --data,"
            f" or name a system of your own with {_own(server)}"
        )
    return str(address)


def _own(server: str) -> str:
    return "--url and --token-file" if server == "http" else f"FLOODGATE_{server.upper()}__URL"
