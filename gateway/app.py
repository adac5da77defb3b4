"""Wires a worker together, and is the only place that does: what it is made of, in which order it starts, and in which
it stops.

Starting needs no dependency: a worker whose ledger or stream is missing says 503 and goes on trying. Stopping loses
nothing: what was admitted is committed, what was committed is published or left to the relay, and every unsold unit
goes back.
"""

import asyncio
import base64
import binascii
from collections.abc import Callable
from typing import NamedTuple

import structlog

from core_ext import IMPLEMENTATION
from gateway import api
from gateway.access import Access
from gateway.admission import Admission
from gateway.availability import Board
from gateway.batch import BatchQueue
from gateway.bell import Bell
from gateway.catalogue import Catalogue
from gateway.clock import Clock
from gateway.committer import Committer
from gateway.domain.keys import Hasher
from gateway.domain.personal import Vault, VaultError, parse_master_keys
from gateway.draining import Drainer
from gateway.edge.bulk import BulkRoom
from gateway.edge.hot import Edge, OrderRoute
from gateway.edge.requests import Receive, Scope, Send
from gateway.edge.show import ShowRoute
from gateway.following import Following, Topic
from gateway.footprint import Footprint
from gateway.heart import Heart
from gateway.journaling import Journaling
from gateway.leases import Leases
from gateway.live import Live
from gateway.log_lines import STANDARD_ERROR
from gateway.lookup import KeyLookup
from gateway.metrics import PUBLISH_PAUSE_S, Counters, Exporter
from gateway.orders import OrderBook
from gateway.publisher import Publisher
from gateway.rates import Rates
from gateway.reads import OrderReads
from gateway.requests_log import RequestLog
from gateway.sales import Sales
from gateway.services import Services
from gateway.settings import Secrets, Settings, SettingsError
from gateway.slots import Place, Slots
from gateway.stream_watch import StreamWatch
from gateway.tasks import Tasks
from gateway.tracing import Tracer, ensure_installed, open_tracer
from persistence.errors import LedgerUnavailableError, StreamUnavailableError
from persistence.nats.stream import Stream
from persistence.postgres import catalogue as products
from persistence.postgres import clients, control, levels, live_settings, orders, stock
from persistence.postgres import sales as sale_rows
from persistence.postgres.connect import open_pool
from persistence.postgres.ledger import Ledger
from persistence.postgres.session import Session
from persistence.redis.mirror import Mirror
from persistence.redis.rates import RateStore

DRAIN_S = 15.0  # for the orders that were admitted before the end
PUBLISH_S = 5.0  # for the events of their commits; the relay sends what is left
CONNECT_PAUSE_S = 0.5
HEADERS_BYTES_MAX = 4096  # of a message of the stream; counted against the server's largest payload
# A worker's connections to the ledger beside its committer's and its pool, and what they run under.
SESSIONS: dict[str, dict[str, str] | None] = {
    "control": None,
    "stock": None,
    "follow": None,
    "bell": None,
    "keys": orders.KEYS_SESSION,
}

log = structlog.get_logger("app")


def open_secrets(secrets: Secrets) -> tuple[Vault, Hasher]:
    """The keys that the settings name. Raises SettingsError."""
    try:
        return Vault(parse_master_keys(secrets.master_keys)), Hasher(base64.b64decode(secrets.hash_key, validate=True))
    except VaultError as error:
        raise SettingsError(f"secrets.master_keys: {error}") from error
    except (binascii.Error, ValueError) as error:
        raise SettingsError("secrets.hash_key has to be the base64 of 32 bytes") from error


class Gateway:
    """The ASGI application of one worker: the edge, and the life of what stands behind it. Knows no lifespan: whoever
    serves it calls `start` before and `stop` after.
    """

    def __init__(self, settings: Settings, place: Place | None = None) -> None:
        """`place`: where the worker's numbers go; by default nobody else sees them. Raises SettingsError."""
        self._settings = settings
        self._place = place or Place(Slots.private(), 0)
        self._vault, self._hasher = open_secrets(settings.secrets)
        ensure_installed(settings)
        self._edge: Edge | None = None
        self._worker: Worker | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._edge is not None, "a request before the start"
        await self._edge(scope, receive, send)

    async def start(self) -> Services:
        """Wire the worker and start its loops. Needs neither ledger nor stream."""
        self._worker = await Worker.start(self._settings, self._vault, self._hasher, self._place)
        services = self._worker.services
        self._edge = Edge(services.route, api.create(services), services.show)
        return services

    async def stop(self) -> None:
        """Bring every order to its end, and give every unsold unit back."""
        assert self._worker is not None
        await self._worker.stop()


class Worker:
    """The parts of a worker, their loops, and the connections that are theirs alone."""

    def __init__(self, services: Services, tasks: Tasks, committer: Committer, sessions: dict[str, Session]) -> None:
        self.services = services
        self._tasks = tasks
        self._sessions = sessions
        self._committer = committer
        self._beating = tasks.loop("heart", services.heart.run)
        tasks.loop("following", services.following.run)
        tasks.loop("sales", services.sales.run)
        tasks.loop("access", lambda: services.access.run(sessions["follow"]))
        tasks.loop("lookup", services.admission.lookup.run)
        tasks.loop("reads", services.reads.run)
        tasks.loop("bell", services.bell.run)
        tasks.loop("board", services.board.run)
        tasks.loop("rates", services.rates.run)
        tasks.loop("listening", services.bell.listen)
        tasks.loop("stream", self._connect_stream)
        tasks.loop("stream_watch", services.stream_watch.run)
        self._leasing = tasks.loop("leases", services.leases.run)
        self._committing = tasks.loop("committer", committer.run)
        tasks.loop("watch", committer.watch)
        self._draining = tasks.loop("drain", services.drainer.run)
        self._publishing = tasks.loop("publisher", services.publisher.run)
        tasks.loop("numbers", self._publish_numbers)
        tasks.loop("footprint", services.footprint.run)
        tasks.loop("requests", services.route.log.run)

    @classmethod
    async def start(cls, settings: Settings, vault: Vault, hasher: Hasher, place: Place | None = None) -> "Worker":
        command_timeout_s = settings.postgres.command_timeout_ms / 1000
        sessions = {
            name: Session(settings.postgres.url, f"fg-{name}", command_timeout_s, session)
            for name, session in SESSIONS.items()
        }
        pool = await open_pool(settings.postgres.url, "fg-read", settings.postgres.pool_max, command_timeout_s)
        clock, catalogue, access, tasks, counters = Clock(), Catalogue(), Access(), Tasks(), Counters()
        request_log, footprint = RequestLog(settings.log, counters), Footprint()
        queue, book = BatchQueue(settings.batch), OrderBook(pool, sessions["keys"], vault)
        reads = OrderReads(book.all_now, book.restore, counters)
        live = Live(settings)
        live.on_limits(lambda: catalogue.apply_limits(live.limit_of))
        mirror = Mirror(settings.redis.url) if settings.redis.url else None
        rates = Rates(live.rate_of, hasher, RateStore(settings.redis.url) if settings.redis.url else None, counters)
        live.on_limits(rates.apply)
        board = Board(lambda keys: levels.available(pool, keys), mirror, clock)
        bell = Bell(sessions["bell"], mirror)
        leases = Leases(sessions["stock"], clock, live, bell, counters)
        sales = Sales(sessions["follow"], clock, catalogue, leases)
        journaling = Journaling(settings.journal, live, clock, counters)
        leases.pins = journaling.pins
        keys = KeyLookup(book.keys)
        admission = Admission(
            settings, clock, catalogue, leases, queue, book, keys, vault, hasher, tasks, sales, journaling
        )
        stream = Stream(settings.nats.url, "floodgate-gateway", settings.nats.ack_timeout_ms / 1000)
        tracer = open_tracer(settings, clock, leases.owner)
        publisher = Publisher(stream, pool, counters, tracer)
        stream_watch = StreamWatch(stream, settings.nats)
        road = _Road(settings, sessions["control"], leases, admission, clock, counters, journaling)
        committer = road.committer(queue, publisher, tasks, tracer)
        heart = Heart(sessions["control"], clock, leases, settings.owner.heartbeat_ms / 1000, journaling)
        services = Services(
            settings=settings,
            clock=clock,
            access=access,
            catalogue=catalogue,
            sales=sales,
            live=live,
            rates=rates,
            mirror=mirror,
            board=board,
            bell=bell,
            leases=leases,
            queue=queue,
            admission=admission,
            route=OrderRoute(settings.http, access, clock, admission, counters, rates, request_log, tracer),
            bulk=BulkRoom(settings, admission, queue, counters, request_log, lambda: publisher.backlog),
            book=book,
            reads=reads,
            show=ShowRoute(access, clock, reads, rates, request_log),
            hasher=hasher,
            pool=pool,
            stream=stream,
            stream_watch=stream_watch,
            publisher=publisher,
            heart=heart,
            journaling=journaling,
            drainer=road.drainer(),
            following=_following(sessions["follow"], access, live, catalogue, sales, bell),
            footprint=footprint,
            tracer=tracer,
            counters=counters,
            exporter=Exporter(counters, place),
        )
        services.exporter.attach(_readers(services))
        ways = {"sealing": vault.sealer.way, "stream_way": stream.way}
        log.info("worker_started", core=IMPLEMENTATION, owner=leases.owner, **ways)
        return cls(services, tasks, committer, sessions)

    async def stop(self) -> None:
        """Stop in the order of the road: no more orders, commit, give back, publish."""
        services = self.services
        services.admission.draining = True
        services.leases.close()
        services.queue.close()
        await asyncio.wait([self._committing], timeout=DRAIN_S)
        await asyncio.wait([self._leasing], timeout=1.0)
        await self._leave()
        services.publisher.close()
        await asyncio.wait([self._publishing], timeout=PUBLISH_S)
        await services.sales.flush()
        await services.access.flush(self._sessions["follow"])
        await self._tasks.close(wait_s=1.0)
        await services.stream.close()
        if services.mirror is not None:
            await services.mirror.close()
        for session in self._sessions.values():
            await session.close()
        services.pool.terminate()
        services.route.log.turn()
        if services.tracer is not None:
            await asyncio.to_thread(services.tracer.sink.close)
        services.exporter.publish()

    async def _leave(self) -> None:
        """Give all units back, before anything else is waited for: buyers of other workers want them. A commit that
        has not come to its end by now is fenced. While the journal has orders, or the ledger does not hear, units and
        journal stay for whoever adopts it.
        """
        leases, journaling = self.services.leases, self.services.journaling
        self._beating.cancel()  # It would find its owner gone, and come back as another one.
        self._draining.cancel()
        await asyncio.wait([self._draining], timeout=1.0)
        left = not journaling.is_empty
        try:
            if left:
                log.warning("journal_left", orders=journaling.left)
            else:
                units = await control.leave(self._sessions["control"], leases.owner, leases.home)
                log.info("leases_given_back", units=units)
        except LedgerUnavailableError as error:
            left = True
            log.warning("leases_left_to_others", error=str(error))
        await journaling.close(remove=not left)

    async def _publish_numbers(self) -> None:
        """Tell the other workers of this host what this one counts, and the supervisor whether it takes orders."""
        exporter = self.services.exporter
        while True:
            exporter.publish()
            exporter.slot.ready = self.services.takes_orders
            await asyncio.sleep(PUBLISH_PAUSE_S)

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


class _Road(NamedTuple):
    """What brings orders to the ledger has these parts in common."""

    settings: Settings
    session: Session
    leases: Leases
    admission: Admission
    clock: Clock
    counters: Counters
    journaling: Journaling

    def ledger(self, owner: str) -> Ledger:
        return Ledger(self.settings.postgres.url, owner, self.settings.postgres.command_timeout_ms / 1000)

    def committer(self, queue: BatchQueue, publisher: Publisher, tasks: Tasks, tracer: Tracer | None) -> Committer:
        return Committer(
            self.ledger,
            self.session,
            queue,
            self.leases,
            self.admission,
            publisher,
            self.clock,
            tasks,
            self.counters,
            self.settings.orders.reply_ms_max / 1000,
            self.journaling,
            tracer,
        )

    def drainer(self) -> Drainer:
        return Drainer(
            self.journaling,
            self.ledger,
            self.session,
            self.leases,
            self.clock,
            self.counters,
            self.settings.retention.key_days,
            lambda: self.admission.open,
        )


def _following(
    session: Session, access: Access, live: Live, catalogue: Catalogue, sales: Sales, bell: Bell
) -> Following:
    return Following(
        session,
        [
            Topic(clients.TOPIC, access.load),
            Topic(live_settings.TOPIC, live.load),  # Before the products: no order until limits are known.
            Topic(products.TOPIC, catalogue.load),
            Topic(sale_rows.TOPIC, sales.load),
            Topic(stock.BELL, bell.load),
        ],
    )


def _readers(services: Services) -> dict[str, Callable[[], float]]:
    """What is looked up whenever the numbers are written, by the attribute of Counters that it stands for."""
    queue, leases, admission, publisher = services.queue, services.leases, services.admission, services.publisher
    clock, heart, bell, rates = services.clock, services.heart, services.bell, services.rates
    stream_watch, footprint, tracer = services.stream_watch, services.footprint, services.tracer
    journaling = services.journaling
    return {
        "queue_orders": lambda: len(queue),
        "queue_bytes": lambda: queue.size,
        "parked_orders": lambda: leases.parked,
        "orders_in_flight": lambda: admission.in_flight,
        "lease_takes": lambda: leases.takes,
        "events_backlog": lambda: publisher.backlog,
        "clock_offset_seconds": lambda: clock.offset_s,
        "heartbeats_missed": lambda: heart.missed,
        "mirror_dropped": lambda: bell.dropped,
        "stream_full": lambda: float(stream_watch.full),
        "stream_faults": lambda: len(stream_watch.faults),
        "bell_up": lambda: float(bell.listening),
        "rates_alone": lambda: float(rates.alone),
        "ledger_up": lambda: float(admission.open),
        "journal_usable": lambda: float(journaling.usable or not journaling.wanted),
        "journal_left": lambda: journaling.left,
        "journal_bytes": lambda: journaling.size,
        "stream_up": lambda: float(stream_watch.connected),
        "log_lines_dropped": lambda: STANDARD_ERROR.dropped,
        "spans_exported": lambda: tracer.sink.exported if tracer else 0,
        "spans_dropped": lambda: tracer.sink.dropped if tracer else 0,
        "resident_bytes": lambda: footprint.resident_bytes,
        "open_files": lambda: footprint.open_files,
        "started_seconds": lambda: footprint.started_s,
    }
