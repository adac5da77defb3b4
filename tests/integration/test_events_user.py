"""A team's user of NATS, on a real server: it reads its own durables and acknowledges, and whatever else it tries
leaves no trace.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import nats
import pytest
from click.testing import CliRunner, Result
from nats.aio.client import Client
from nats.js import JetStreamContext

from deploy.local.folder import DataFolder
from deploy.local.nats_config import ACCOUNT, EXPORTS, USER
from deploy.local.servers import NatsServer
from gateway.cli import main
from persistence.nats.durable import can_read
from persistence.nats.stream import NAME, STOCK, Event, Stream, StreamSettings

CONSUMER = Path(__file__).parents[2] / "deploy" / "examples" / "consumer.py"
SETTINGS = StreamSettings(1, 3600, 60)
TYPE = "com.floodgate.order.created.v1"


def event(number: int) -> Event:
    document: dict[str, Any] = {
        "id": f"order-{number}.1",
        "type": TYPE,
        "data": {"items": [{"sku": "A", "quantity": 1, "amount": 2}]},
    }
    return Event(f"orders.created.app.{number % 16:02d}", document["id"], json.dumps(document).encode())


class System(NamedTuple):
    """What `floodgate up` leaves for the command to find: a folder that is held, and a server that runs."""

    folder: Path
    server: NatsServer

    def user(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["events", "user", *arguments, "--data", str(self.folder)])

    async def team(self, *arguments: str) -> dict[str, Any]:
        result = await asyncio.to_thread(self.user, *arguments, "--json")
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    folder = DataFolder(tmp_path / "data")
    folder.claim()
    server = NatsServer(folder.nats)
    server.start()
    server.wait_ready()
    with folder.locked():
        folder.write_run({"nats": server.url, "pids": {server.kind: server.pid}})
        yield System(folder.path, server)
    server.stop()


@pytest.fixture
async def stream(system: System) -> AsyncIterator[Stream]:
    """The streams, with five orders and a level."""
    stream = Stream(system.server.url, "test", 5.0)
    await stream.ensure_streams(SETTINGS)
    await stream.publish([event(number) for number in range(5)])
    await stream.publish([Event("stock.low.00", "41.1", b"{}")], STOCK)
    yield stream
    await stream.close()


async def connected(url: str) -> Client:
    async def on_error(error: Exception) -> None:
        """Refusals are what the tests are about; they look at what is left behind."""

    return await nats.connect(url, error_cb=on_error, allow_reconnect=False)


async def reader(client: Client, domain: str, durable: str, stream: str = NAME) -> JetStreamContext.PullSubscription:
    return await client.jetstream(domain=domain).pull_subscribe_bind(durable, stream=stream)


async def left(stream: Stream) -> dict[str, Any]:
    """All that a team could have changed."""
    jetstream = (await stream.ensure_open()).jetstream()
    found: dict[str, Any] = {}
    for info in await jetstream.streams_info():
        assert info.config.name
        state = (await jetstream.stream_info(info.config.name, subjects_filter=">")).state
        consumers = await jetstream.consumers_info(info.config.name)
        found[info.config.name] = (
            info.config,
            state.messages,
            state.subjects,
            [(consumer.name, consumer.config, consumer.ack_floor, consumer.num_pending) for consumer in consumers],
        )
    return found


async def test_team_reads_its_durables_and_acknowledges(system: System, stream: Stream) -> None:
    team = await system.team("finance")
    assert [durable["name"] for durable in team["durables"]] == ["finance-orders", "finance-stock"]
    client = await connected(team["url"])
    orders = await reader(client, team["domain"], "finance-orders")
    for message in await orders.fetch(5, timeout=5):
        await message.ack_sync()
    floor = (await orders.consumer_info()).ack_floor
    assert floor is not None
    assert floor.stream_seq == 5
    levels = await reader(client, team["domain"], "finance-stock", STOCK)
    assert [message.data for message in await levels.fetch(1, timeout=5)] == [b"{}"]
    await client.close()


async def test_team_has_the_durables_that_it_was_made_with_and_those_of_later(system: System, stream: Stream) -> None:
    first = await system.team("finance", "--durable", "sales=orders.created.>")
    again = await system.team("finance", "--durable", "stock=stock.low.>")
    assert again["url"] == first["url"]
    assert await system.team("finance") == again
    assert [tuple(durable.values()) for durable in again["durables"]] == [
        (NAME, "finance-sales", "orders.created.>"),
        (STOCK, "finance-stock", "stock.low.>"),
    ]


async def test_durable_that_an_operator_has_changed_is_left_as_it_is(system: System, stream: Stream) -> None:
    team = await system.team("finance")
    jetstream = (await stream.ensure_open()).jetstream()
    config = (await jetstream.consumer_info(NAME, "finance-orders")).config
    await jetstream.add_consumer(NAME, config.evolve(max_ack_pending=7))
    assert await system.team("finance") == team
    assert (await jetstream.consumer_info(NAME, "finance-orders")).config.max_ack_pending == 7


FORBIDDEN = {
    "an event": ("orders.created.app.00", b"{}"),
    "a level": ("stock.low.00", b"{}"),
    "purge": ("$JS.API.STREAM.PURGE.ORDERS", b""),
    "deletion of the stream": ("$JS.API.STREAM.DELETE.ORDERS", b""),
    "change of the stream": ("$JS.API.STREAM.UPDATE.ORDERS", b'{"name":"ORDERS","subjects":["x"]}'),
    "another stream": ("$JS.API.STREAM.CREATE.MINE", b'{"name":"MINE","subjects":["mine"]}'),
    "deletion of an event": ("$JS.API.STREAM.MSG.DELETE.ORDERS", b'{"seq":1}'),
    "a consumer": ("$JS.API.CONSUMER.CREATE.ORDERS.mine", b'{"stream_name":"ORDERS","config":{"durable_name":"mine"}}'),
    "deletion of a consumer": ("$JS.API.CONSUMER.DELETE.ORDERS.logistics-orders", b""),
    "deletion of its own": ("$JS.API.CONSUMER.DELETE.ORDERS.finance-orders", b""),
    "events of another": ("$JS.API.CONSUMER.MSG.NEXT.ORDERS.logistics-orders", b'{"batch":5}'),
    "ack for another": ("$JS.ACK.ORDERS.logistics-orders.1.1.1.1.0", b"+ACK"),
}


async def test_team_that_writes_leaves_no_trace(system: System, stream: Stream) -> None:
    await system.team("logistics")
    team = await system.team("finance")
    before = await left(stream)
    client = await connected(team["url"])
    for subject, payload in FORBIDDEN.values():
        for written in (subject, subject.replace("$JS.API.", f"$JS.{team['domain']}.API.")):
            await client.publish(written, payload, reply=client.new_inbox())
    await client.flush()
    await client.close()
    assert await left(stream) == before


async def test_team_that_lets_answers_be_sent_to_a_subject_of_the_streams_writes_nothing(
    system: System, stream: Stream
) -> None:
    team = await system.team("finance")
    before = {name: found[1:3] for name, found in (await left(stream)).items()}
    client = await connected(team["url"])
    events = await reader(client, team["domain"], "finance-orders")
    (message,) = await events.fetch(1, timeout=5)
    ask = f"$JS.{team['domain']}.API.CONSUMER"
    for forged in ("orders.created.app.00", "stock.low.00"):
        await client.publish(f"{ask}.MSG.NEXT.ORDERS.finance-orders", b'{"batch":1,"no_wait":true}', reply=forged)
        await client.publish(f"{ask}.INFO.ORDERS.finance-orders", b"", reply=forged)
        await client.publish(message.reply, b"+ACK", reply=forged)
        await client.publish(message.reply, b"+NXT", reply=forged)
    await client.flush()
    # The answer to a question that was asked later shows that the others have been answered.
    await events.consumer_info()
    await client.close()
    assert {name: found[1:3] for name, found in (await left(stream)).items()} == before


async def test_team_with_a_wrong_password_is_not_let_in(system: System, stream: Stream) -> None:
    team = await system.team("finance")
    wrong = system.server.url_of("finance", "wrong")
    assert await can_read(team["url"], team["domain"], NAME, "finance-orders")
    assert not await can_read(wrong, team["domain"], NAME, "finance-orders")


async def test_team_is_still_there_after_a_restart_of_the_server(system: System, stream: Stream) -> None:
    team = await system.team("finance")
    system.server.stop()
    system.server.start()
    system.server.wait_ready()
    client = await connected(team["url"])
    assert len(await (await reader(client, team["domain"], "finance-orders")).fetch(5, timeout=5)) == 5
    await client.close()


async def test_floodgate_goes_on_publishing_while_a_team_is_let_in(system: System, stream: Stream) -> None:
    await system.team("finance")
    await stream.publish([event(number) for number in range(10, 12)])
    assert (await left(stream))[NAME][1] == 7


async def test_passwords_are_for_the_owner_of_the_folder_alone(system: System, stream: Stream) -> None:
    await system.team("finance")
    files = [system.server.directory / "nats.conf", *(system.server.directory / "teams").iterdir()]
    assert [file.stat().st_mode & 0o077 for file in files] == [0, 0]


async def test_consumer_of_a_team_counts_every_order(system: System, stream: Stream, empty_postgres_url: str) -> None:
    team = await system.team("finance", "--durable", "sales=orders.created.>")
    command = [sys.executable, "-u", str(CONSUMER), "--nats", team["url"], "--postgres", empty_postgres_url]
    process = await asyncio.create_subprocess_exec(
        *command, "--domain", team["domain"], "--durable", "finance-sales", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        said = [(await process.stdout.readline()).decode() for _ in range(5)]
    process.kill()
    await process.wait()
    assert said == [f"counted: order-{number}.1\n" for number in range(5)]
    database = await asyncpg.connect(empty_postgres_url)
    assert tuple(await database.fetchrow("select * from sku_sales")) == ("A", 5, 10)
    await database.close()


async def test_configuration_for_a_server_of_ones_own_lets_the_team_in(tmp_path: Path) -> None:
    server = Pasted(tmp_path / "own")
    server.start()
    server.wait_ready()
    stream = Stream(server.url, "test", 5.0)
    await stream.ensure_streams(SETTINGS)
    await stream.publish([event(number) for number in range(3)])
    result = await asyncio.to_thread(
        CliRunner(env={"FLOODGATE_NATS__URL": server.url}).invoke, main, ["events", "user", "finance", "--json"]
    )
    assert result.exit_code == 0, result.output
    await stream.close()
    server.stop()
    server.block = result.stderr[result.stderr.index("accounts {") :]
    server.start()
    server.wait_ready()
    team = json.loads(result.stdout)
    client = await connected(team["url"])
    assert len(await (await reader(client, team["domain"], "finance-orders")).fetch(3, timeout=5)) == 3
    await client.close()
    server.stop()


class Pasted(NatsServer):
    """Somebody's own server, with what the command has printed in its configuration."""

    block = "accounts {\n}"

    def configure(self) -> None:
        user = f'{{user: {USER}, password: "{self.secret}"}}'
        ours = f"{ACCOUNT} {{ jetstream: enabled, users: [{user}], exports: [{', '.join(EXPORTS)}] }}"
        (self.directory / "nats.conf").write_text(
            f'host: 127.0.0.1\nport: {self.port}\njetstream {{ store_dir: "{self.directory}" }}\n'
            + self.block.replace("accounts {", f"accounts {{\n{ours}", 1)
        )


@pytest.mark.parametrize(
    "arguments",
    [
        ("Finance",),
        ("a.b",),
        (USER,),
        ("finance", "--durable", "sales"),
        ("finance", "--durable", "x=$JS.>"),
        ("finance", "--durable", "a-b=orders.>"),
        ("finance", "--durable", "x=orders.created.>", "--durable", "x=orders.cancelled.>"),
    ],
)
def test_team_that_cannot_be_called_so_is_refused(system: System, arguments: tuple[str, ...]) -> None:
    assert system.user(*arguments).exit_code == 2
    assert system.server.teams() == {}


async def test_durable_that_is_there_for_other_events_is_left_and_the_server_starts_again(
    system: System, stream: Stream
) -> None:
    team = await system.team("finance", "--durable", "sales=orders.created.>")
    refused = await asyncio.to_thread(system.user, "finance", "--durable", "sales=orders.cancelled.>")
    assert (refused.exit_code, "finance-sales is there for orders.created.>" in refused.output) == (2, True)
    assert await system.team("finance", "--durable", "sales=orders.created.>") == team
    system.server.stop()
    system.server.start()
    system.server.wait_ready()
    assert await can_read(team["url"], team["domain"], NAME, "finance-sales")


def test_streams_of_a_server_without_accounts_are_there_when_it_has_them(tmp_path: Path) -> None:
    former = Former(tmp_path / "nats")
    former.start()
    former.wait_ready()
    asyncio.run(_publish(former.url))
    former.stop()
    server = NatsServer(former.directory, secret=former.secret)
    server.start()
    server.wait_ready()
    assert asyncio.run(_publish(server.url)) == 3
    server.stop()


class Former(NatsServer):
    """A server whose only account is that of everybody."""

    def configure(self) -> None:
        (self.directory / "nats.conf").write_text(
            f'host: 127.0.0.1\nport: {self.port}\njetstream {{ store_dir: "{self.directory}" }}\n'
            f'authorization {{ users: [{{user: {USER}, password: "{self.secret}"}}] }}\n'
        )


async def _publish(url: str) -> int:
    """Publish three events; returns how many of them were known."""
    stream = Stream(url, "test", 5.0)
    await stream.ensure_streams(SETTINGS)
    known = await stream.publish([event(number) for number in range(3)])
    await stream.close()
    return known
