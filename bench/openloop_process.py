"""The process that offers the orders of an open loop (bench/openloop.py): `python -m bench.openloop_process` reads a
Load from its standard input and answers with what it was told. It has a process, so that it comes to its orders on time
whatever its caller does meanwhile, and one loop over epoll with raw sockets, since an event loop for Protocols cannot
keep 18,000 orders a second (2026-11-23).

It promises what the open loop promises, and to end as soon as its caller has. It never waits for anything but its next
instant or an event, and never opens connections faster than OPENED_AT_ONCE in OPENING_PAUSE_S.
"""

import gc
import os
import resource
import select
import socket
import sys
import time
from collections import Counter, deque

import msgspec

from bench.openloop import ACCEPTED, CONNECT_S, CUT, LATE_S, NO_ANSWER, NOT_SENT, Load, Told

STARTS_IN_S = 0.2
IDLE_S = 0.01  # the longest wait for an event
# The shortest one, while nobody is answered: to be woken for each instant by itself costs 40 us an order at 4,300 a
# second, instead of 29 (2026-11-23).
WAIT_S_MIN = 0.0005
# Answers that are heard between two looks at the instants: a crowd of them takes a millisecond or two.
EVENTS_AT_ONCE = 64
OPENED_AT_ONCE = 64
OPENING_PAUSE_S = 0.01
OPENING_AGAIN_S = 0.1  # after an attempt that has failed
READ_BYTES = 65_536
PARENT = 0  # Its end of our standard input.
READABLE = select.EPOLLIN
CREATED = b"201"
END_OF_HEAD = b"\r\n\r\n"
LENGTH, CODE, ORDER_ID = b"content-length: ", b'"code":"', b'"order_id":"'
ORDER_ID_BYTES = 36
Sent = tuple[float, int]  # an order under way: its instant and its connection


class UnreachableError(Exception):
    """The gateway takes no connections."""


class Generator:
    """One load: its connections by their descriptors, those of them that are free, and the orders that wait for one."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.start = 0.0
        self.until = 0.0  # how long an answer is followed by the next order
        self.offered = 0
        self.late = 0
        self.outcomes: Counter[str] = Counter()
        self.waits: list[float] = []
        self.ids: list[bytes] = []
        self.answered_at: list[float] = []
        self._total = int(load.rate * load.seconds)
        where = socket.getaddrinfo(load.target.host, load.target.port, type=socket.SOCK_STREAM)[0]
        self._family, self._address = where[0], where[4]
        self._waiting: deque[tuple[int, float]] = deque()
        self._sent: dict[int, Sent] = {}
        # Those that were sent, the first first; patience is the same for all. Most have been answered meanwhile.
        self._leaving: deque[Sent] = deque()
        self._received: dict[int, bytes] = {}  # the beginnings of answers
        self._sockets: dict[int, socket.socket] = {}
        self._free: list[int] = []
        self._opening: dict[int, float] = {}  # when each was begun, in this order
        self._opens_from = 0.0
        self._failure: OSError | None = None
        self._events = select.epoll()
        self._events.register(PARENT, select.EPOLLRDHUP)

    def run(self) -> Told:
        """The whole load. Raises UnreachableError; SystemExit when the caller has gone."""
        cpu_s = time.process_time()
        self._connect()
        self.start = time.monotonic() + (STARTS_IN_S if self._total else 0.0)
        if not self.load.rate:
            self.until = self.start + self.load.seconds
            for _ in range(len(self._free)):
                self._offer(self.start, self.start)
        while not self._is_over():
            self._turn(self._offer_due())
        return self._told(time.process_time() - cpu_s)

    def _connect(self) -> None:
        deadline = time.monotonic() + CONNECT_S
        while len(self._free) < self.load.connections:
            self._turn(IDLE_S)
            if self._failure or time.monotonic() > deadline:
                where = f"{self.load.target.host}:{self.load.target.port}"
                why = repr(self._failure) if self._failure else f"{len(self._free)} stay open"
                raise UnreachableError(f"{where} takes no connections: {why}")

    def _is_over(self) -> bool:
        if self._waiting or self._sent:
            return False
        return self.offered >= self._total and time.monotonic() >= self.until

    def _turn(self, wait_s: float) -> None:
        """Hear what there is to hear, or else wait for it for so long; let go who has waited too long."""
        events = self._events.poll(0, EVENTS_AT_ONCE)
        if not events and wait_s > 0:
            # Not epoll itself, which knows of milliseconds alone.
            select.select((self._events,), (), (), wait_s)
            events = self._events.poll(0, EVENTS_AT_ONCE)
        for descriptor, event in events:
            if event == READABLE:
                if self._hear(descriptor):
                    self._ready(descriptor)
            else:
                self._change(descriptor)
        now = time.monotonic()
        self._let_go(now)
        if now >= self._opens_from:
            self._open(now)

    def _offer_due(self) -> float:
        """Offer the orders whose instants have come; how many seconds from now the next look is."""
        load, start = self.load, self.start
        while self.offered < self._total:
            at, now = start + self.offered / load.rate, time.monotonic()
            if at > now:
                return min(max(at - now, WAIT_S_MIN), IDLE_S)
            self._offer(at, now)
        return IDLE_S

    def _offer(self, at: float, now: float) -> None:
        """An order whose instant is `at` is due. While one waits no connection is free."""
        number = self.offered
        self.offered += 1
        if now - at > LATE_S:
            self.late += 1
        if self._free:
            self._send(self._free.pop(), number, at)
        else:
            self._waiting.append((number, at))

    def _ready(self, descriptor: int) -> None:
        """A connection has nothing to do: it takes the order that has waited longest, or the next one."""
        now = time.monotonic()
        waiting = self._waiting
        while waiting:
            number, at = waiting.popleft()
            if now - at < self.load.patience_s:
                self._send(descriptor, number, at)
                return
            self.outcomes[NOT_SENT] += 1
        self._free.append(descriptor)
        if now < self.until:
            self._offer(now, now)

    def _send(self, descriptor: int, number: int, at: float) -> None:
        sent = self._sent[descriptor] = (at, descriptor)
        self._leaving.append(sent)
        target = self.load.target
        request = b"%b%d%b" % (target.before_key, number, target.after_key)
        try:
            # It is far smaller than the socket's buffer, in which there is nothing else.
            is_whole = os.write(descriptor, request) == len(request)
        except OSError:
            is_whole = False
        if not is_whole:
            self._lose(descriptor)

    def _hear(self, descriptor: int) -> bool:
        """Read; whether that has ended an answer, so that the connection has nothing to do."""
        try:
            answer = os.read(descriptor, READ_BYTES)
        except OSError:
            answer = b""
        if not answer or descriptor not in self._sent:  # It has ended; or says what nobody has asked.
            self._lose(descriptor)
            return False
        if self._received:
            answer = self._received.pop(descriptor, b"") + answer
        head = answer.find(END_OF_HEAD)
        if head < 0 or len(answer) < head + len(END_OF_HEAD) + _length(answer, head):
            self._received[descriptor] = answer
            return False
        self._note(answer, head, self._sent.pop(descriptor)[0])
        return True

    def _note(self, answer: bytes, head: int, at: float) -> None:
        if answer[9:12] != CREATED:
            self.outcomes[_code(answer, head)] += 1
            return
        now = time.monotonic()
        self.outcomes[ACCEPTED] += 1
        start = answer.find(ORDER_ID, head) + len(ORDER_ID)
        assert start > head, answer
        self.waits.append(now - at)
        self.ids.append(answer[start : start + ORDER_ID_BYTES])
        self.answered_at.append(now)

    def _let_go(self, now: float) -> None:
        """Give up what has waited for the whole patience."""
        before = now - self.load.patience_s
        while self._waiting and self._waiting[0][1] < before:
            self._waiting.popleft()
            self.outcomes[NOT_SENT] += 1
        while self._leaving and self._leaving[0][0] < before:
            sent = self._leaving.popleft()
            if self._sent.get(sent[1]) is sent:  # It has not been answered.
                del self._sent[sent[1]]
                self.outcomes[NO_ANSWER] += 1
                self._lose(sent[1])
        while self._opening and next(iter(self._opening.values())) < now - CONNECT_S:
            self._fail(next(iter(self._opening)), TimeoutError(f"no connection in {CONNECT_S:.0f} s"))

    def _open(self, now: float) -> None:
        """Begin the connections that are missing, and those that orders wait for."""
        there = len(self._sockets)
        wanted = max(self.load.connections - there, len(self._waiting) - len(self._opening))
        count = min(wanted, self.load.connections_max - there, OPENED_AT_ONCE)
        if count <= 0:
            return
        self._opens_from = now + OPENING_PAUSE_S
        for _ in range(count):
            self._begin(now)

    def _begin(self, now: float) -> None:
        try:
            connection = socket.socket(self._family)
        except OSError as error:  # There may be no more descriptors.
            self._put_off(error)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        descriptor = connection.fileno()
        self._sockets[descriptor], self._opening[descriptor] = connection, now
        connection.connect_ex(self._address)
        self._events.register(descriptor, select.EPOLLOUT)

    def _change(self, descriptor: int) -> None:
        """Something else than an answer: the caller has gone; a connection is open, or not to be had; it ends."""
        if descriptor == PARENT:
            raise SystemExit(1)
        if descriptor in self._opening:
            self._opened(descriptor)
        elif descriptor in self._sockets:
            # What was said before the end counts.
            self._hear(descriptor)
            self._lose(descriptor)

    def _opened(self, descriptor: int) -> None:
        if error := self._sockets[descriptor].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(descriptor, OSError(error, os.strerror(error)))
            return
        del self._opening[descriptor]
        self._events.modify(descriptor, READABLE | select.EPOLLRDHUP)
        self._ready(descriptor)

    def _fail(self, descriptor: int, error: OSError) -> None:
        del self._opening[descriptor]
        self._lose(descriptor)
        self._put_off(error)

    def _put_off(self, error: OSError) -> None:
        self._failure = error
        self._opens_from = time.monotonic() + OPENING_AGAIN_S

    def _lose(self, descriptor: int) -> None:
        """A connection has ended, and with it the order under way; another one comes in its place."""
        connection = self._sockets.pop(descriptor, None)
        if connection is None:
            return
        connection.close()  # That takes it from epoll, too.
        self._received.pop(descriptor, None)
        if self._sent.pop(descriptor, None):
            self.outcomes[CUT] += 1
        elif descriptor in self._free:
            self._free.remove(descriptor)

    def _told(self, cpu_s: float) -> Told:
        assert self.outcomes.total() == self.offered, "every order is accounted for"
        return Told(
            self.offered,
            self.outcomes,
            self.waits,
            [order_id.decode() for order_id in self.ids],
            self.answered_at,
            self.late,
            self.load.seconds,
            self.start,
            max(self.answered_at, default=self.start),
            cpu_s,
        )


def _length(answer: bytes, head: int) -> int:
    """Of the body. An answer that does not say it never ends, as far as anybody can tell."""
    start = answer.find(LENGTH, 0, head)
    if start < 0:  # Servers are free in how they write it.
        start = answer[:head].lower().find(LENGTH)
    if start < 0:
        return sys.maxsize
    return int(answer[start + len(LENGTH) : answer.find(b"\r\n", start)])


def _code(answer: bytes, head: int) -> str:
    """Of a refusal; the status when it has none."""
    start = answer.find(CODE, head)
    if start < 0:
        return f"status_{answer[9:12].decode()}"
    start += len(CODE)
    return answer[start : answer.find(b'"', start)].decode()


def main() -> None:
    """Read a Load, do it, and answer with a Told, or with why there is none."""
    _, files_max = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, files_max))
    line = sys.stdin.buffer.readline()
    if not line:
        raise SystemExit(1)
    load = msgspec.json.decode(line, type=Load)
    # A load makes no rubbish, so that nobody has to look for it.
    gc.collect()
    gc.disable()
    try:
        answer: Told | str = Generator(load).run()
    except (UnreachableError, socket.gaierror) as error:
        answer = str(error)
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer))


if __name__ == "__main__":
    main()
