"""Wires a worker together, and is the only place that does: what it is made of, in which order it starts, and in which
it stops.

Starting needs no dependency: a worker whose ledger or stream is missing says 503 and goes on trying. Stopping loses
nothing: what was admitted is committed, what was committed is published or left to the relay, and every unsold unit
goes back.
"""

import asyncio
import base64
import binascii

import structlog

from core_ext import IMPLEMENTATION
from gateway import api
from gateway.access import Access
from gateway.admission import Admission
from gateway.batch import BatchQueue
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.committer import Committer
from gateway.domain.keys import Hasher
from gateway.domain.personal import Vault, VaultError, parse_master_keys
from gateway.edge.answers import renew_prefix
from gateway.edge.hot import Edge, OrderRoute
from gateway.edge.requests import Receive, Scope, Send
from gateway.following import Following
from gateway.heart import Heart
from gateway.leases import Leases
from gateway.lookup import KeyLookup
from gateway.metrics import Counters, Exporter
from gateway.orders import OrderBook
from gateway.process import configure_logging, die_with_parent
from gateway.publisher import Publisher
from gateway.services import Services
from gateway.settings import Secrets, Settings, SettingsError, load
from gateway.tasks import Tasks
from persistence.errors import LedgerUnavailableError, StreamUnavailableError
from persistence.nats.stream import Stream
from persistence.postgres import control
from persistence.postgres.connect import open_pool
from persistence.postgres.ledger import Ledger
from persistence.postgres.session import Session

DRAIN_S = 15.0  # for the orders that were admitted before the end
PUBLISH_S = 5.0  # for the events of their commits; the relay sends what is left
CONNECT_PAUSE_S = 0.5
HEADERS_BYTES_MAX = 4096  # of a message of the stream; counted against the server's largest payload

log = structlog.get_logger("app")


def create() -> "Gateway":
    """The ASGI application of one worker, from the settings in its environment."""
    settings = load()
    configure_logging(settings.log)
    die_with_parent()
    renew_prefix()
    return Gateway(settings)


def open_secrets(secrets: Secrets) -> tuple[Vault, Hasher]:
    """The keys that the settings name. Raises SettingsError."""
    try:
        return Vault(parse_master_keys(secrets.master_keys)), Hasher(base64.b64decode(secrets.hash_key, validate=True))
    except VaultError as error:
        raise SettingsError(f"secrets.master_keys: {error}") from error
    except (binascii.Error, ValueError) as error:
        raise SettingsError("secrets.hash_key has to be the base64 of 32 bytes") from error


class Gateway:
    """The ASGI application: the edge, and the life of what stands behind it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._vault, self._hasher = open_secrets(settings.secrets)
        self._edge: Edge | None = None
        self._worker: Worker | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        assert self._edge is not None, "a request before the start"
        await self._edge(scope, receive, send)

    async def start(self) -> Services:
        """Wire the worker and start its loops. Needs neither ledger nor stream."""
        self._worker = await Worker.start(self._settings, self._vault, self._hasher)
        self._edge = Edge(self._worker.services.route, api.create(self._worker.services))
        return self._worker.services

    async def stop(self) -> None:
        """Bring every order to its end, and give every unsold unit back."""
        assert self._worker is not None
        await self._worker.stop()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


class Worker:
    """The parts of a worker, their loops, and the connections that are theirs alone."""

    def __init__(self, services: Services, tasks: Tasks, committer: Committer, sessions: dict[str, Session]) -> None:
        self.services = services
        self._tasks = tasks
        self._sessions = sessions
        tasks.loop("heart", services.heart.run)
        tasks.loop("following", services.following.run)
        tasks.loop("lookup", services.admission.lookup.run)
        tasks.loop("stream", self._connect_stream)
        self._leasing = tasks.loop("leases", services.leases.run)
        self._committing = tasks.loop("committer", committer.run)
        tasks.loop("watch", committer.watch)
        self._publishing = tasks.loop("publisher", services.publisher.run)

    @classmethod
    async def start(cls, settings: Settings, vault: Vault, hasher: Hasher) -> "Worker":
        command_timeout_s = settings.postgres.command_timeout_ms / 1000
        sessions = {
            name: Session(settings.postgres.url, f"fg-{name}", command_timeout_s)
            for name in ("control", "stock", "follow")
        }
        pool = await open_pool(settings.postgres.url, "fg-read", settings.postgres.pool_max, command_timeout_s)
        clock, catalogue, access, tasks, counters = Clock(), Catalogue(), Access(), Tasks(), Counters()
        queue, book = BatchQueue(settings.batch), OrderBook(pool, vault)
        leases = Leases(sessions["stock"], clock, settings.stock)
        admission = Admission(
            settings, clock, catalogue, leases, queue, book, KeyLookup(book.keys), vault, hasher, tasks
        )
        stream = Stream(settings.nats.url, "floodgate-gateway", settings.nats.ack_timeout_ms / 1000)
        publisher = Publisher(stream, pool, counters)
        committer = Committer(
            lambda owner: Ledger(settings.postgres.url, owner, command_timeout_s),
            sessions["control"],
            queue,
            leases,
            admission,
            publisher,
            clock,
            tasks,
            counters,
            settings.orders.reply_ms_max / 1000,
        )
        heart = Heart(sessions["control"], clock, leases, settings.owner.heartbeat_ms / 1000)
        services = Services(
            settings=settings,
            clock=clock,
            access=access,
            catalogue=catalogue,
            leases=leases,
            queue=queue,
            admission=admission,
            route=OrderRoute(settings.http, access, clock, admission, counters),
            book=book,
            hasher=hasher,
            pool=pool,
            stream=stream,
            publisher=publisher,
            heart=heart,
            following=Following(sessions["follow"], catalogue, access),
            counters=counters,
            exporter=_exporter(counters, queue, leases, publisher, admission, heart, clock),
        )
        log.info("worker_started", core=IMPLEMENTATION, owner=leases.owner)
        return cls(services, tasks, committer, sessions)

    async def stop(self) -> None:
        """Stop in the order of the road: no more orders, commit, publish, give back."""
        services = self.services
        services.admission.draining = True
        services.leases.close()
        services.queue.close()
        await asyncio.wait([self._committing], timeout=DRAIN_S)
        services.publisher.close()
        await asyncio.wait([self._publishing], timeout=PUBLISH_S)
        await asyncio.wait([self._leasing], timeout=1.0)
        await self._tasks.close(wait_s=1.0)
        try:
            units = await control.leave(self._sessions["control"], services.leases.owner, services.leases.home)
            log.info("leases_given_back", units=units)
        except LedgerUnavailableError as error:
            log.warning("leases_left_to_the_steward", error=str(error))
        await services.stream.close()
        for session in self._sessions.values():
            await session.close()
        services.pool.terminate()

    async def _connect_stream(self) -> None:
        """Connect to the stream, however long it takes; nats-py comes back by itself afterwards."""
        stream = self.services.stream
        while True:
            try:
                await stream.ensure_open()
            except StreamUnavailableError as error:
                log.warning("stream_away", error=str(error))
                await asyncio.sleep(CONNECT_PAUSE_S)
                continue
            self.services.admission.event_bytes_max = stream.payload_bytes_max - HEADERS_BYTES_MAX
            return


def _exporter(
    counters: Counters,
    queue: BatchQueue,
    leases: Leases,
    publisher: Publisher,
    admission: Admission,
    heart: Heart,
    clock: Clock,
) -> Exporter:
    return Exporter(
        counters,
        {
            "floodgate_queue_orders": ("Orders that wait to be committed", lambda: len(queue)),
            "floodgate_queue_bytes": ("Encoded rows that wait to be committed", lambda: queue.size),
            "floodgate_parked_orders": ("Orders that wait for stock", lambda: leases.parked),
            "floodgate_orders_in_flight": ("Keys whose first request is being answered", lambda: admission.in_flight),
            "floodgate_lease_takes_total": ("Takes of stock that were asked for", lambda: leases.takes),
            "floodgate_events_backlog": (
                "Events in memory that the stream has not acknowledged",
                lambda: publisher.backlog,
            ),
            "floodgate_clock_offset_seconds": ("PostgreSQL's clock less this host's", lambda: clock.offset_s),
            "floodgate_heartbeats_missed": ("Heartbeats in a row that the ledger did not answer", lambda: heart.missed),
            "floodgate_ledger_up": ("1 while the ledger takes orders", lambda: float(admission.open)),
        },
    )
