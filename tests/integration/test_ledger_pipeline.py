"""The batch in one write: when it is taken, when it is not, and that the driver's own calls go on beside it."""

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from persistence.errors import PoisonError
from persistence.postgres import control, ledger, pipeline
from tests.ledger_world import World, draft, key_of, new_id, open_world

SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
LOCALHOST = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with open_world(postgres_url) as world:
        yield world
        await world.assert_clean()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the batches that went in one write."""
    lengths: list[int] = []
    exchange = pipeline.Pipeline.exchange

    async def note(self: pipeline.Pipeline, messages: bytes) -> pipeline.Answer:
        lengths.append(len(messages))
        return await exchange(self, messages)

    monkeypatch.setattr(pipeline.Pipeline, "exchange", note)
    return lengths


def certificate(folder: Path) -> ssl.SSLContext:
    """What a server on this machine shows whoever asks for TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder(LOCALHOST, LOCALHOST, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "both.pem").write_bytes(secret + made.public_bytes(pem))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "both.pem")
    return context


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while chunk := await source.read(1 << 16):
        sink.write(chunk)
    sink.transport.abort()


@pytest.fixture
async def tls_url(postgres_url: str, tmp_path: Path) -> AsyncIterator[str]:
    """A way to PostgreSQL that asks for TLS and ends it, since the server of the wheel cannot."""
    target, context = urlsplit(postgres_url), certificate(tmp_path)
    pumps: list[asyncio.Task[None]] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == SSL_REQUEST
        writer.write(b"S")
        await writer.start_tls(context)
        behind, sink = await asyncio.open_connection(target.hostname, target.port)
        pumps.extend(asyncio.create_task(one) for one in (pump(reader, sink), pump(behind, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    login = target.netloc.rpartition("@")[0]
    yield target._replace(netloc=f"{login}@127.0.0.1:{port}", query="sslmode=require").geturl()
    server.close()
    await asyncio.gather(*pumps, return_exceptions=True)


async def test_ledger_of_the_known_driver_is_pipelined(world: World, written: list[int]) -> None:
    lane = world.ledger()
    assert lane.way == "closed"
    await lane.commit(new_id(), [draft()])
    assert (lane.way, len(written)) == ("pipelined", 1)


async def test_ledger_of_another_driver_goes_step_by_step(
    world: World, written: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncpg, "__version__", "0.33.0")
    lane = world.ledger()
    assert await lane.commit(new_id(), [draft()]) == []
    assert (lane.way, written) == ("stepwise", [])


async def test_ledger_whose_driver_hides_its_transport_goes_step_by_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "getattr", lambda *_: None, raising=False)
    lane = world.ledger()
    assert await lane.commit(new_id(), [draft()]) == []
    assert lane.way == "stepwise"


async def test_ledger_goes_step_by_step_while_orders_are_refused_and_no_longer(
    world: World, written: list[int]
) -> None:
    lane = world.ledger()
    await lane.commit(new_id(), [draft(key=key_of(1))])
    for _ in range(2):
        (refusal,) = await lane.commit(new_id(), [draft(key=key_of(1)), draft()])
        assert refusal.verdict == "duplicate"
    assert len(written) == 2  # The second one in vain.
    for _ in range(2):
        assert await lane.commit(new_id(), [draft()]) == []
    assert len(written) == 3


async def test_ledger_keeps_its_connection_through_both_ways(world: World) -> None:
    lane = world.ledger()
    pids = set()
    for key in (1, 1, 1, 2, 3):
        await lane.commit(new_id(), [draft(key=key_of(key))])
        pids.add(await world.value("select pid from pg_stat_activity where application_name like 'fg-commit:%'"))
    assert len(pids) == 1


async def test_commit_of_a_text_that_is_none_is_poison_and_costs_no_connection(
    world: World, written: list[int]
) -> None:
    hand = await world.hand()
    bad = draft((hand, 1), customer="u-1", limit=3)
    lane = world.ledger()
    with pytest.raises(PoisonError):
        await lane.commit(new_id(), [bad._replace(limits=[bad.limits[0]._replace(customer="\ud800")])])
    assert (lane.way, written) == ("pipelined", [])


async def test_commit_with_an_error_behind_it_is_ambiguous_and_resolves_to_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = pipeline.Pipeline.exchange

    async def exchange_and_fail(self: pipeline.Pipeline, messages: bytes) -> pipeline.Answer:
        return (await exchange(self, messages))._replace(error=asyncpg.QueryCanceledError("too late"))

    owner, batch_id = await world.owner(), new_id()
    monkeypatch.setattr(pipeline.Pipeline, "exchange", exchange_and_fail)
    with pytest.raises(ledger.AmbiguousError) as caught:
        await world.ledger(owner).commit(batch_id, [draft()])
    assert await control.resolve(world.control, batch_id, caught.value.backend_pid, owner) is True


async def test_commit_over_tls_is_pipelined(world: World, tls_url: str, written: list[int]) -> None:
    lane = world.ledger(url=tls_url)
    assert await lane.commit(new_id(), [draft() for _ in range(300)]) == []
    assert await lane.commit(new_id(), [draft(key=key_of(1))]) == []
    (refusal,) = await lane.commit(new_id(), [draft(key=key_of(1))])
    assert (lane.way, refusal.verdict, len(written)) == ("pipelined", "duplicate", 3)
    lane.close()
