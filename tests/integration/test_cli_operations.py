"""The commands of operators: `migrate`, whole and as a check, and `recover` of a restored ledger."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from click.testing import CliRunner, Result

from core_ext import documents, ids
from core_ext.shapes import Change, Line, Order
from gateway.cli import main
from gateway.domain.recall import headers_of
from persistence.nats.stream import Event, Stream, StreamSettings
from persistence.postgres import migrate, schema
from tests.ledger_world import key_of, now_ms
from tests.served import HASH_KEY, MASTER_KEYS

STEPS = len(migrate.revisions(None, migrate.head()))


class Floodgate:
    """The command line, with settings that name the servers."""

    def __init__(self, postgres_url: str, nats_url: str) -> None:
        self.postgres_url = postgres_url
        self.nats_url = nats_url
        self._environment = {
            "FLOODGATE_POSTGRES__URL": postgres_url,
            "FLOODGATE_NATS__URL": nats_url,
            "FLOODGATE_SECRETS__MASTER_KEYS": MASTER_KEYS,
            "FLOODGATE_SECRETS__HASH_KEY": HASH_KEY,
            "FLOODGATE_OWNER__TIMEOUT_MS": "3000",
        }

    def __call__(self, *arguments: str) -> Result:
        return CliRunner(env=self._environment).invoke(main, arguments)

    def execute(self, statement: str, *values: object) -> None:
        self._with_connection(lambda connection: connection.execute(statement, *values))

    def value(self, query: str) -> object:
        return self._with_connection(lambda connection: connection.fetchval(query))

    def publish(self, events: list[Event]) -> None:
        async def publish() -> None:
            stream = Stream(self.nats_url, "test", 5.0)
            await stream.ensure_streams(StreamSettings(1, 604800, 600))
            await stream.publish(events)
            await stream.close()

        asyncio.run(publish())

    def _with_connection(self, call: Callable[[asyncpg.Connection], Awaitable[object]]) -> object:
        async def connected() -> object:
            connection = await asyncpg.connect(self.postgres_url)
            try:
                return await call(connection)
            finally:
                await connection.close()

        return asyncio.run(connected())


@pytest.fixture
def empty(empty_postgres_url: str, nats_url: str) -> Floodgate:
    return Floodgate(empty_postgres_url, nats_url)


@pytest.fixture
def floodgate(postgres_url: str, nats_url: str) -> Floodgate:
    return Floodgate(postgres_url, nats_url)


def created(number: int, units: int = 1) -> Event:
    """The event of an order that no ledger here knows."""
    order_id, at = ids.new_id(now_ms()), now_ms()
    line = Line(1, "TEA", "Teapot", units, 100, 100 * units, stocked=True)
    order = Order(order_id, 1, "app", "CNY", "paid", 1, 100 * units, [line], at)
    change = Change(1, at, "created", "paid", "client:shop")
    payload = documents.event_json(order, change, "/floodgate/local")
    headers = headers_of(order, (key_of(number), bytes(16)))
    return Event(documents.event_subject(order_id, "created", "app"), documents.event_id(order_id, 1), payload, headers)


def test_migrate_says_each_step_that_it_took_and_then_that_there_is_none(empty: Floodgate) -> None:
    first = empty("migrate")
    assert first.exit_code == 0, first.output
    assert [line[:4] for line in first.output.splitlines()[:STEPS]] == [f"{n:04d}" for n in range(1, STEPS + 1)]
    assert f"from nothing to {migrate.head()}" in first.output
    second = empty("migrate")
    assert second.exit_code == 0
    assert second.output.startswith(f"The ledger's schema is at {migrate.head()}.")


def test_migrate_check_names_what_is_missing_and_changes_nothing(empty: Floodgate) -> None:
    checked = empty("migrate", "--check")
    assert checked.exit_code == 1
    assert checked.output.count("missing: 0") == STEPS
    assert "missing: partitions of orders\n" in checked.output
    assert empty.value("select count(*) from pg_class where relname = 'schema_version'") == 0
    assert empty("migrate").exit_code == 0
    checked = empty("migrate", "--check")
    assert (checked.exit_code, checked.output) == (0, "Nothing is missing.\n")


def test_migrate_of_a_ledger_that_a_newer_release_has_migrated_leaves_it_alone(floodgate: Floodgate) -> None:
    floodgate.execute("update schema_version set version_num = '9999'")
    done = floodgate("migrate")
    assert done.exit_code == 0, done.output
    assert "schema is at 9999" in done.output
    assert floodgate("migrate", "--check").exit_code == 0


def test_recover_takes_back_what_the_stream_knows_and_says_what_it_cannot(floodgate: Floodgate) -> None:
    floodgate.execute("select stock_set('TEA', 5, 4, 'test', null, null)")
    floodgate.publish([created(number, units=2) for number in range(3)])
    trial = floodgate("recover", "--dry-run", "--json")
    assert trial.exit_code == 0, trial.output
    assert json.loads(trial.stdout)["done"]["orders"] == 3
    assert floodgate.value("select count(*) from orders") == 0
    done = floodgate("recover")
    assert done.exit_code == 0, done.output
    assert "The books balance." in done.output
    assert "1 units of 1 SKUs" in done.output
    assert "client shop (id 1)" in done.output
    assert floodgate.value("select count(*) from orders") == 3
    again = floodgate("recover", "--json")
    assert json.loads(again.stdout)["done"]["orders"] == 0


def test_recover_of_what_is_no_event_goes_on_and_exits_1(floodgate: Floodgate) -> None:
    floodgate.publish([Event("orders.created.app.00", "strange.1", b"{}"), created(1)])
    done = floodgate("recover", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    assert (report["whole"], report["unreadable"], report["done"]["orders"]) == (False, 1, 1)


def test_recover_on_an_older_schema_says_what_to_do(floodgate: Floodgate) -> None:
    floodgate.execute("update schema_version set version_num = '0006'")
    done = floodgate("recover")
    assert done.exit_code == 1
    assert f"is at 0006 and {schema.NEEDED} is needed: run `floodgate migrate`" in done.output


def test_recover_while_an_owner_is_alive_names_it(floodgate: Floodgate) -> None:
    owner = "01234567-89ab-7def-8123-456789abcdef"
    floodgate.execute("insert into worker (owner, host, pid, lane) values ($1, 'till-1', 42, 0)", owner)
    done = floodgate("recover")
    assert done.exit_code == 1
    assert f"owner {owner} on till-1 (pid 42)" in done.output


def test_recover_since_something_that_is_no_time_is_refused(floodgate: Floodgate) -> None:
    done = floodgate("recover", "--since", "yesterday")
    assert done.exit_code == 2
    assert "2026-11-11T00:00:00Z" in done.output
