"""`floodgate events resend`: sends events again that a stream has forgotten or a consumer has lost, from the tables.

They go to their own subjects, with their ids, or plainly to a subject of a team's own.
"""

import re
from pathlib import Path
from typing import NamedTuple

import click

from core_ext import ids
from gateway.cli import address, terminal
from gateway.cli.examples import examples
from gateway.cli.instants import instant
from gateway.cli.local import load_or_exit
from gateway.domain.event_types import EVENT_TYPES
from gateway.resend import Wanted, pages
from persistence.nats.stream import SUBJECTS, Stream
from persistence.postgres.connect import connect

SUBJECT = re.compile(r"[^\s.*>\0]+(\.[^\s.*>\0]+)*")
OURS = tuple(subject.removesuffix(">") for subjects in SUBJECTS.values() for subject in subjects)
PERCENT = 100


class Sent(NamedTuple):
    """How many events, and how many of them the stream knew already."""

    events: int = 0
    duplicates: int = 0


class Way(NamedTuple):
    """From which ledger to which stream."""

    postgres_url: str
    nats_url: str
    source: str
    ack_timeout_s: float
    subject: str | None


@examples(
    "floodgate events resend --since 2h --type order.created",
    "floodgate events resend --order 0199a7c2-5d80-7c3e-9b1f-4a6d2e8c0f51",
    "floodgate events resend --since 7d --to finance.again",
)
@click.command()
@click.option("--since", default=None, metavar="TIME", help="Those decided since: RFC 3339, or how long ago: 10m, 7d.")
@click.option("--order", "order", default=None, metavar="ID", help="Those of one order.")
@click.option(
    "--type", "name", type=click.Choice(list(EVENT_TYPES)), default=None, metavar="TYPE", help="Those of one type."
)
@click.option("--to", default=None, metavar="SUBJECT", help="Send them there, not to their own subjects.")
@address.json_option
@address.servers_options
def resend(
    since: str | None,
    order: str | None,
    name: str | None,
    to: str | None,
    data: Path,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    """Send events again from the ledger, to the byte.

    They have the ids of the first time: a consumer that keeps them applies none twice, and what the stream stored
    within its duplicate window it does not store again.

    TYPE is one of those that /schema/events shows, such as order.created.
    """
    wanted = _wanted(since, order, name)
    if to is not None:
        _check_subject(to)
    settings = load_or_exit(config)
    way = Way(
        address.ledger_url(data, config),
        address.stream_url(data, config),
        f"/floodgate/{settings.installation.name}",
        settings.nats.ack_timeout_ms / 1000,
        to,
    )
    sent = address.run(_resend(wanted, way))
    if order is not None and not sent.events:
        raise click.ClickException(f"there is no such event of an order {order}")
    if as_json:
        stored = None if to else sent.events - sent.duplicates
        duplicates = None if to else sent.duplicates
        terminal.say_json({"sent": sent.events, "stored": stored, "duplicates": duplicates, "to": to})
    else:
        click.echo(_said(sent, to))


def _wanted(since: str | None, order: str | None, name: str | None) -> Wanted:
    if since is None and order is None and name is None:
        raise click.UsageError("name which events: --since, --order or --type")
    order_id = None if order is None else ids.parse_id(order)
    if order is not None and order_id is None:
        raise click.UsageError(f"--order {order}: it has to be the id of an order")
    types = frozenset(EVENT_TYPES if name is None else [name])
    return Wanted(types, None if since is None else int(instant(since).timestamp() * 1000), order_id)


def _check_subject(subject: str) -> None:
    if not SUBJECT.fullmatch(subject):
        raise click.UsageError(f"--to {subject}: a subject is words with dots between them")
    if subject.startswith((*OURS, "$", "_")):
        raise click.UsageError(f"--to {subject}: it belongs to the streams or to NATS itself; name one of your own")


async def _resend(wanted: Wanted, way: Way) -> Sent:
    stream = Stream(way.nats_url, "floodgate-resend", way.ack_timeout_s)
    connection = await connect(way.postgres_url, "fg-resend", command_timeout_s=60.0)
    sent = Sent()
    try:
        with terminal.progress(PERCENT, "Sending") as bar:
            done = 0
            async for page in pages(connection, wanted, way.source):
                if way.subject is None:
                    duplicates = await stream.publish(page.events, page.stream)
                else:
                    duplicates = 0
                    await stream.send_plainly(page.events, way.subject)
                sent = Sent(sent.events + len(page.events), sent.duplicates + duplicates)
                bar.update(int(page.share * PERCENT) - done)
                done = int(page.share * PERCENT)
    finally:
        await stream.close()
        await connection.close()
    return sent


def _said(sent: Sent, subject: str | None) -> str:
    if subject is not None:
        return f"Sent {sent.events:,} events to {subject}."
    stored = sent.events - sent.duplicates
    return f"Sent {sent.events:,} events: {stored:,} are stored anew, {sent.duplicates:,} the stream knew already."
