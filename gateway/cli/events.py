"""`floodgate events`: prints the events of the stream, one a line, in the order of the stream.

It only reads: nothing is acknowledged, and no consumer but a short-lived one of its own is made. Without `--follow` it
ends when it has caught up. `resend` and `user` are commands below it.
"""

from contextlib import suppress
from pathlib import Path

import click
import msgspec

from gateway.cli import address
from gateway.cli.events_resend import resend
from gateway.cli.events_user import user
from gateway.cli.examples import examples
from gateway.cli.instants import instant
from persistence.nats.read import Reader
from persistence.nats.stream import NAME, STOCK

STREAMS = {"orders": NAME, "stock": STOCK}


class Data(msgspec.Struct):
    """Of an order's event, of a level's, and of a product's."""

    channel: str = "-"
    total: int | None = None
    currency: str = ""
    sale_id: str = "-"
    level: str = ""
    available: int = 0
    price: int | None = None


class Event(msgspec.Struct):
    """What is printed of a CloudEvent."""

    type: str = "-"
    subject: str = "-"
    time: str = "-"
    data: Data = msgspec.field(default_factory=Data)


@examples(
    "floodgate events --since 10m",
    "floodgate events --follow --json",
    "floodgate events --stream stock --count 5",
)
@click.group(invoke_without_command=True)
@click.option(
    "--stream", type=click.Choice(list(STREAMS)), default="orders", show_default=True, help="Whose events to print."
)
@click.option(
    "--since", default=None, metavar="TIME", help="RFC 3339, or how long ago: 90s, 10m, 2h, 7d.  [default: all]"
)
@click.option("--count", type=click.IntRange(min=1), default=None, help="End after so many events.")
@click.option("--follow", is_flag=True, help="Go on with the events to come.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as it is, one a line.")
@address.servers_options
@click.pass_context
def events(
    context: click.Context,
    stream: str,
    since: str | None,
    count: int | None,
    data: Path,
    config: Path | None,
    *,
    follow: bool,
    as_json: bool,
) -> None:
    """Print events from a stream."""
    if context.invoked_subcommand is not None:
        return
    start = instant(since) if since else None
    reader = Reader(address.stream_url(data, config), start, STREAMS[stream])
    with suppress(KeyboardInterrupt):
        address.run(_print(reader, count, follow=follow, as_json=as_json))


async def _print(events_of: Reader, count: int | None, *, follow: bool, as_json: bool) -> None:
    left = count
    async with events_of as reader:
        async for payload in reader.payloads(follow=follow):
            click.echo(payload.decode(errors="replace") if as_json else _line(payload))
            if left is not None:
                left -= 1
                if left == 0:
                    return


def _line(payload: bytes) -> str:
    try:
        event = msgspec.json.decode(payload, type=Event)
    except msgspec.DecodeError as error:
        return f"not an event: {error}"
    kind = event.type.removeprefix("com.floodgate.")
    if event.data.level:
        units = f"{event.data.available:,} units"
        return f"{event.time}  {kind:<22}  {event.subject}  {event.data.sale_id:<16}  {event.data.level:<8}  {units}"
    amount = event.data.price if event.data.total is None else event.data.total
    total = "-" if amount is None else f"{amount} {event.data.currency}"
    return f"{event.time}  {kind:<18}  {event.subject}  {event.data.channel:<16}  {total}"


events.add_command(resend)
events.add_command(user)
