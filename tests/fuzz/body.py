"""Bodies: whatever a client sends to any route that reads one, through the whole road in one process: the edge in each
of its three ways, Litestar, the decoding, the compiled validation, pricing and encoding, the queue. Behind them the
ledger takes every order and is away for all else.

Checked of each: an answer that is whole and documented, never a 500; that a problem is one of the registry; and of an
order that the compiled modules, their twins, and the published schema say the same of it.
"""

import asyncio
import itertools
import json
import re
import time
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from litestar.handlers import HTTPRouteHandler

from core_ext.codes import PROBLEMS
from core_ext.shapes import OrderIn
from gateway import api
from gateway.api.examples import ORDER_ID, ORDER_IN
from gateway.api.operations import OPERATION, Operation
from gateway.domain.access import SCOPES
from gateway.edge.bulk import BulkRoom
from gateway.edge.hot import Edge
from gateway.edge.requests import Message
from gateway.settings import Settings
from persistence.errors import LedgerUnavailableError
from tests.api import App, services
from tests.direct import DirectEdge
from tests.ext.twins import COMPILED, REFERENCE
from tests.fuzz.target import Answer, FindingError, Target
from tests.fuzz.texts import FIELDS, PIECES, TOKENS, lines, texts
from tests.unit.test_road_fuzz import ANY_BODY, Road

HUNG_S = 10.0
BEAT_S = 1.0
PLACE, BULK = "placeOrder", "placeOrdersInBulk"
NAMES = {"sku": "A", "order_id": ORDER_ID, "name": "web", "sale_id": "double-11"}
PLAIN = ORDER_IN | {"items": [{"sku": "A", "quantity": 6}]}
PRICED = PLAIN | {
    "items": [{"sku": "A", "quantity": 6, "unit_price": 255}, {"sku": "A", "quantity": 1}],
    "adjustments": [{"type": "discount", "amount": -30, "label": "coupon", "line": 1}],
    "placed_at": "2026-11-11T00:00:00Z",
    "paid": {"reference": "wx-1", "at": "2026-11-11T00:00:01+08:00"},
}
ORDERS = (PLAIN, PRICED)


class Route(NamedTuple):
    """One that reads a body."""

    method: str
    path: str
    operation: Operation

    @property
    def examples(self) -> list[Any]:
        """Bodies that it takes."""
        if self.operation.name == PLACE:
            return list(ORDERS)
        if self.operation.name == BULK:
            return [{"idempotency_key": "A-77", "order": order} for order in ORDERS]
        return [self.operation.body_example]


class Body(msgspec.Struct, array_like=True):
    """A request: the place of its route, whether its client names prices, how the edge serves it, and what comes as the
    body in which pieces; `announced` is what it says of its length.
    """

    route: int
    prices: bool
    way: int
    body: bytes
    cuts: list[int]
    announced: bool


def _routes() -> list[Route]:
    found = []
    for handler in api.HANDLERS:
        assert isinstance(handler, HTTPRouteHandler)
        operation: Operation = handler.opt[OPERATION]
        if operation.body is not None:
            path = re.sub(r"\{(\w+):str\}", lambda named: NAMES[named[1]], min(handler.paths))
            found.append(Route(min(handler.http_methods), path, operation))
    return found


ROUTES = _routes()
PLACES = [at for at, route in enumerate(ROUTES) if route.operation.name == PLACE]
assert len(PLACES) == 1, "the hot route is there once"


class World:
    """A worker's road for clients of these scopes."""

    def __init__(self, scopes: set[str]) -> None:
        self._road = Road(scopes)
        route = self._road._route
        admission, access, counters = route._admission, route._access, route._counters
        room = BulkRoom(Settings(), admission, self._road.queue, counters, route.log, lambda: 0)
        parts = services(
            route=route,
            admission=admission,
            access=access,
            clock=route._clock,
            bulk=room,
            leases=admission._leases,
            pool=Away(),
            counters=counters,
        )
        litestar: App = api.create(parts)
        self.ways: list[App] = [Edge(route, litestar), DirectEdge(route, parts.show), litestar]
        self.document = json.loads(litestar.state.document)  # type: ignore[attr-defined]  # of Litestar
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """In the loop: have orders committed, and keys looked up."""
        loop = asyncio.get_running_loop()
        loops = (self._road._commit(), self._road._lookup.run(), self._beat())
        self._tasks = [loop.create_task(one) for one in loops]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _beat(self) -> None:
        """Tell the clock the time, as a heartbeat does: one that has not been told for long takes no orders."""
        clock = self._road._route._clock
        while True:
            clock.observe(time.time(), time.monotonic(), time.monotonic())
            await asyncio.sleep(BEAT_S)


class Away:
    """The ledger of all that is no order."""

    def __getattr__(self, name: str) -> Any:
        raise LedgerUnavailableError("away")


class BodyTarget(Target[Body]):
    """See above."""

    name: ClassVar[str] = "body"
    shape = Body
    dictionary: ClassVar[Sequence[bytes]] = [f'"{name}"'.encode() for name in FIELDS] + [
        piece for piece in [*PIECES, *(token.encode("utf-8", "surrogatepass") for token in TOKENS)] if len(piece) < 40
    ]

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._worlds = [World({*SCOPES} - {"orders:price"}), World({*SCOPES})]
        self._keys = itertools.count()
        components = self._worlds[0].document["components"]
        self._schema = Draft202012Validator({"$ref": "#/components/schemas/OrderIn", "components": components})
        self._loop.run_until_complete(self._start())

    def inputs(self) -> st.SearchStrategy[Body]:
        cuts = st.lists(st.integers(0, 300), max_size=2)
        options = (st.booleans(), st.integers(0, 2))
        orders = st.just(PLACES[0]), *options, texts(ORDERS) | ANY_BODY, cuts, st.booleans()
        others = [
            st.builds(Body, st.just(at), *options, _bodies(route), cuts, st.booleans())
            for at, route in enumerate(ROUTES)
        ]
        return st.builds(Body, *orders) | st.one_of(others)

    def of_bytes(self, data: bytes) -> Body:
        at, options, body = data[:1], data[1:2] or b"\0", data[2:]
        # Half of all are orders.
        route = at[0] % len(ROUTES) if at and at[0] < 128 else PLACES[0]
        return Body(route, bool(options[0] & 1), options[0] // 2 % 3, body, [], announced=bool(options[0] & 64))

    def corpus(self) -> list[bytes]:
        return [
            bytes([at, options]) + json.dumps(example, ensure_ascii=False).encode()
            for at, route in enumerate(ROUTES)
            for example in route.examples
            for options in (64, 67)
        ]

    def check(self, batch: Sequence[Body]) -> list[Answer]:
        return [self._loop.run_until_complete(self._check(one)) for one in batch]

    def close(self) -> None:
        self._loop.run_until_complete(self._stop())
        self._loop.close()

    async def _start(self) -> None:
        for world in self._worlds:
            world.start()

    async def _stop(self) -> None:
        for world in self._worlds:
            await world.stop()

    async def _check(self, one: Body) -> Answer:
        route, world = ROUTES[one.route], self._worlds[one.prices]
        is_order = route.operation.name == PLACE
        app = world.ways[one.way if is_order else 0]
        sent: list[Message] = []
        try:
            async with asyncio.timeout(HUNG_S):
                await app(self._scope(one, route), _receiving(one), _keeping(sent))
        except TimeoutError:
            raise FindingError(f"{route.path} gave no answer within {HUNG_S:.0f} s") from None
        answer = _judged(route, sent)
        if is_order:
            self._compare(one, answer)
        return answer

    def _scope(self, one: Body, route: Route) -> dict[str, Any]:
        headers = [
            (b"host", b"floodgate"),
            (b"authorization", b"Bearer t"),
            (b"content-type", route.operation.body_type.encode()),
            (b"idempotency-key", b"key-%d" % next(self._keys)),
            (b"if-match", b'"1"'),
        ]
        if one.announced:
            headers.append((b"content-length", b"%d" % len(one.body)))
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": route.method,
            "path": route.path,
            "raw_path": route.path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "state": {},
        }

    def _compare(self, one: Body, answer: Answer) -> None:
        """Twins and schema say of an order what its answer says."""
        if answer.label.startswith("503"):
            raise FindingError(f"an order is answered with {answer.label}, and the ledger is there")
        order_in = _decoded(one.body)
        fault = _fault(order_in, may_price=one.prices) if order_in is not None else None
        if answer.accepted:
            if fault != 0:
                raise FindingError(f"an order was taken of which the twins say {fault}")
            errors = [error.message for error in self._schema.iter_errors(json.loads(one.body))]
            if errors:
                raise FindingError(f"an order was taken that the schema does not allow: {errors[0]}")
        elif fault == 0 and answer.label == "400 malformed_json":
            raise FindingError("an order was refused as unreadable that can be read")


def _bodies(route: Route) -> st.SearchStrategy[bytes]:
    return (lines if route.operation.name == BULK else texts)(route.examples)


def _receiving(one: Body) -> Any:
    cuts = sorted(min(cut, len(one.body)) for cut in one.cuts)
    pieces = [one.body[start:end] for start, end in itertools.pairwise([0, *cuts, len(one.body)])]
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages[-1]["more_body"] = False
    incoming = iter(messages)

    async def receive() -> Message:
        return next(incoming, {"type": "http.disconnect"})

    return receive


def _keeping(sent: list[Message]) -> Any:
    async def send(message: Message) -> None:
        sent.append(message)

    return send


def _judged(route: Route, sent: list[Message]) -> Answer:
    """The answer, when it is one that the route may give. Raises FindingError."""
    operation = route.operation
    if not sent or sent[0]["type"] != "http.response.start":
        raise FindingError(f"{route.method} {route.path} was not answered")
    status, headers = sent[0]["status"], dict(sent[0]["headers"])
    body = b"".join(message.get("body", b"") for message in sent[1:])
    if b"content-length" in headers and int(headers[b"content-length"]) != len(body):
        raise FindingError(f"{status} with a body of {len(body)} bytes, and not {headers[b'content-length'].decode()}")
    if status < 400:
        if status not in operation.answers:
            raise FindingError(f"{operation.name} answers {status}, which is not documented")
        if operation.name == BULK:
            _judge_lines(operation, body)
        return Answer(accepted=True, label=str(status))
    problem = json.loads(body)
    _judge_problem(operation, status, problem)
    code = problem["code"]
    # All but orders has been read, and goes on to a ledger that is away.
    accepted = code == "ledger_away" and operation.name != PLACE
    return Answer(accepted, f"{status} {code}")


def _judge_lines(operation: Operation, body: bytes) -> None:
    *verdicts, summary = [json.loads(line) for line in body.splitlines()]
    if summary["summary"]["lines"] != len(verdicts):
        raise FindingError(f"{len(verdicts)} verdicts, and the summary has {summary['summary']['lines']}")
    for verdict in verdicts:
        if verdict["status"] >= 400:
            _judge_problem(operation, verdict["status"], verdict["problem"])


def _judge_problem(operation: Operation, status: int, problem: dict[str, Any]) -> None:
    code = problem["code"]
    if code == "internal" or status == 500:
        raise FindingError(f"{operation.name} answers {status} {code}", "500")
    if code not in operation.codes or PROBLEMS[code].status != status:
        raise FindingError(f"{operation.name} answers {status} {code}, which is not documented")
    for error in problem.get("errors", []):
        if not {"detail", "pointer", "code"} <= error.keys():
            raise FindingError(f"{operation.name} answers with a fault that names not all: {error}")


def _decoded(body: bytes) -> OrderIn | None:
    try:
        return msgspec.json.decode(body, type=OrderIn)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _fault(order_in: OrderIn, *, may_price: bool) -> int:
    """The first fault of an order by its own bounds, of which the twins say the same."""
    numbers = [twin.validation.check_order(order_in, may_price) for twin in (COMPILED, REFERENCE)]
    if numbers[0] != numbers[1]:
        raise FindingError(f"of an order the compiled validation says {numbers[0]}, and its twin {numbers[1]}")
    number: int = numbers[0]
    return number
