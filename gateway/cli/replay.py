"""`floodgate replay`: feeds a file of real orders through the HTTP edge, as the channel itself would.

Running it again is always safe: accepted orders are replayed, catalogue and stock that stand are left alone. It exits
0 only when every order of the file has got a final answer, be it a refusal.
"""

import gzip
import zlib
from pathlib import Path

import click
import msgspec

from gateway.channels import online_retail
from gateway.channels.feed import ChannelError, Feed, Reader
from gateway.cli import address, terminal
from gateway.cli.address import EdgeAddress
from gateway.cli.edge import Edge
from gateway.cli.examples import examples
from gateway.cli.preparing import at_once, ensure_goods
from gateway.cli.sending import Result, send

CHANNELS: dict[str, Reader] = {online_retail.NAME: online_retail.read}
GZIP_MAGIC = b"\x1f\x8b"


@examples(
    "floodgate replay online_retail.csv.gz --channel online-retail --prepare",
    "floodgate replay online_retail.csv.gz --channel online-retail --rate 200 --json",
)
@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--channel", type=click.Choice(list(CHANNELS)), required=True, help="Whose format the file has.")
@click.option("--prepare", is_flag=True, help="First make the catalogue and the stock that the file needs.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), default=None, help="Orders a second, at most.")
@address.json_option
@address.edge_options
def replay(
    file: Path,
    channel: str,
    rate: float | None,
    url: str | None,
    token_file: Path | None,
    data: Path,
    *,
    prepare: bool,
    as_json: bool,
) -> None:
    """Feed a file of real orders through the HTTP edge."""
    target = address.edge_address(url, token_file, data)
    feed = _read(file, CHANNELS[channel])
    result = Result(cancellations=feed.cancellations, adjustments=feed.adjustments)
    try:
        address.run(_replay(target, feed, result, rate, prepare=prepare))
    finally:
        _say(result, as_json=as_json)


def _read(file: Path, reader: Reader) -> Feed:
    try:
        raw = file.read_bytes()
        return reader(gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw)
    except ChannelError as error:
        raise click.ClickException(f"{file}: {error}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise click.ClickException(f"{file} cannot be read: {error}") from error


async def _replay(target: EdgeAddress, feed: Feed, result: Result, rate: float | None, *, prepare: bool) -> None:
    async with Edge(target.url, target.token) as edge:
        if prepare:
            with terminal.progress(len(feed.goods), "catalogue") as bar:
                async for _ in at_once(feed.goods, lambda goods: ensure_goods(edge, goods)):
                    bar.update(1)
        with terminal.progress(len(feed.sales), "orders") as bar:
            async for _ in send(edge, feed.sales, result, rate):
                bar.update(1)


def _say(result: Result, *, as_json: bool) -> None:
    if as_json:
        terminal.say_json(msgspec.to_builtins(result))
        return
    codes = ", ".join(f"{code} {count}" for code, count in result.refused_by_code.most_common())
    click.echo(
        f"accepted       {result.accepted:,}"
        f"  ({result.lines:,} lines, {result.units:,} units, worth {result.value:,} minor units)"
    )
    click.echo(f"replayed       {result.replayed:,}  (accepted by an earlier run)")
    click.echo(f"refused        {result.refused:,}" + (f"  ({codes})" if codes else ""))
    click.echo(f"cancellations  {result.cancellations:,}  (counted, not sent)")
    if result.adjustments:
        click.echo(f"adjustments    {result.adjustments:,}  (counted, not sent)")
    orders = result.accepted + result.replayed + result.refused
    click.echo(f"{orders:,} orders in {result.seconds:.1f} s")
