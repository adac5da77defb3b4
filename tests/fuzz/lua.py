"""Arguments of the Lua scripts, on a real server: other types, sizes, signs, numbers beyond all bounds, texts that are
no numbers and bytes that are no text, over keys that hold what nobody of ours has put there.

Checked of each: a call that is refused has changed nothing; one that is not has left what its script promises: whole
numbers that are not negative, versions and times that only rise, a pool that is the sum of its shards, keys that
expire; no call touches another key; and whatever stands there, the mirror's reader gives a whole answer or none.
"""

import asyncio
import itertools
import re
import shutil
import struct
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import redis
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from deploy.local.servers import ValkeyServer
from persistence.errors import MirrorUnavailableError
from persistence.redis.client import Script
from persistence.redis.mirror import PUSH, PUSH_AVAILABLE, TTL_MS, Mirror
from persistence.redis.rates import GCRA
from tests.fuzz.target import Answer, FindingError, Target

SCRIPTS = (PUSH, PUSH_AVAILABLE, GCRA)
WORDS = ("push", "push_available", "gcra")
IS_PUSH, IS_AVAILABLE, IS_RATE = range(3)
SKU = "A"
KEY = b"fg:{%b}" % SKU.encode().hex().encode()
METERS = [b"fg:{rate}:%02x" % number for number in range(3)]
OTHER = b"other"  # a key that no script is told of
NOW_MS = 1_800_000_000_000
CALL_S_MAX = 5.0
EXACT_MAX = 2**53
GONE = -2  # how long a key lives that is not there
_SHARD = re.compile(rb"([0-9]+) ([0-9]+) ([0-9]+)")
_PAIR = re.compile(rb"([0-9]+) ([0-9]+)")

ODD = [
    *(
        b"",
        b"0",
        b"1",
        b"4",
        b"-1",
        b"-0",
        b"1.5",
        b"1e3",
        b"1e308",
        b"1e309",
        b"-1e309",
        b"nan",
        b"-nan",
        b"inf",
        b"-inf",
    ),
    *(
        b"0x10",
        b" 1",
        b"1 ",
        b"01",
        b"+1",
        b"9007199254740991",
        b"9007199254740993",
        b"9223372036854775808",
        b"9" * 400,
    ),
    *(b"NULL", b"nil", b"true", b"\x00", b"1\x00", b"\xff\xfe", b"%d", b"%s%n", b"'", b"]]", b"x" * 100_000, b"pool"),
]
DOUBLES = [0.0, 1.0, -1.0, 1e6, 1.5, 2.0**53, 1e300, -1e300, float("inf"), float("-inf"), float("nan"), 5e-324]


class Call(msgspec.Struct, array_like=True):
    """A script by its place, on keys that hold `before`: a hash, or a text when it is one value without a field."""

    script: int
    keys: int
    before: list[tuple[bytes, bytes]]
    arguments: list[bytes]


class LuaTarget(Target[Call]):
    """See above. `server` is one of the caller's; without it a server of its own is started."""

    name: ClassVar[str] = "lua"
    shape = Call

    def __init__(self, server: ValkeyServer | None = None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="floodgate-fuzz-")) if server is None else None
        self._server = server or ValkeyServer(self._folder / "valkey")  # type: ignore[operator]  # There is a folder.
        if self._folder is not None:
            self._server.start()
            self._server.wait_ready()
        self._client = redis.Redis.from_url(self._server.url, socket_timeout=CALL_S_MAX)
        self._loop = asyncio.new_event_loop()
        self._mirror = Mirror(self._server.url)
        for script in SCRIPTS:
            self.load(script.text)
        self._client.set(OTHER, b"as it was")

    def load(self, text: str) -> Script:
        """Teach the server a script."""
        return Script(text, self._client.script_load(text))

    def inputs(self) -> st.SearchStrategy[Call]:
        return st.one_of(_pushes(), _pushes(), _availables(), _charges())

    def check(self, batch: Sequence[Call]) -> list[Answer]:
        return [self._check(one) for one in batch]

    def pids(self) -> list[int]:
        return [self._server.pid or 0]

    def finish(self) -> None:
        """Whoever was told nonsense still works."""
        self._client.delete(KEY)
        _expect(self._client.ping(), "the server does not answer any more")

    def close(self) -> None:
        self._client.flushall()
        self._client.close()
        self._loop.run_until_complete(self._mirror.close())
        self._loop.close()
        if self._folder is not None:
            self._server.stop()
            shutil.rmtree(self._folder)

    def _check(self, one: Call) -> Answer:
        keys = METERS[: one.keys] if one.script == IS_RATE else [KEY][: one.keys]
        pipeline = self._client.pipeline(transaction=False)
        pipeline.delete(KEY, *METERS)
        for key in keys:
            for field, value in one.before:
                if field:
                    pipeline.hset(key, field, value)
                else:
                    pipeline.set(key, value, px=TTL_MS)
        states = len(keys) * 3
        for key in keys:
            self._look(pipeline, key)
        pipeline.execute_command("EVALSHA", SCRIPTS[one.script].digest, len(keys), *keys, *one.arguments)
        for key in keys:
            self._look(pipeline, key)
        pipeline.get(OTHER)
        pipeline.dbsize()
        replies = pipeline.execute(raise_on_error=False)
        *rest, other, size = replies
        before, reply, after = rest[-2 * states - 1 : -states - 1], rest[-states - 1], rest[-states:] if states else []
        _expect(other == b"as it was", "a key that the call does not name was changed")
        _expect(size <= 1 + len(keys), "there is a key that the call does not name")
        refused = isinstance(reply, ResponseError)
        for at in range(len(keys)):
            was, now = _state(before[3 * at : 3 * at + 3]), _state(after[3 * at : 3 * at + 3])
            if refused:
                _expect(_same(was, now), f"a call that was refused ({reply}) has changed {was!r:.300} to {now!r:.300}")
            else:
                JUDGES[one.script](was, now)
        if one.script == IS_RATE and not refused:
            _judge_told(reply, len(keys))
        self._read()
        return Answer(not refused, f"{WORDS[one.script]} {'refused' if refused else 'taken'}")

    def _look(self, pipeline: Any, key: bytes) -> None:
        pipeline.hgetall(key)
        pipeline.get(key)
        pipeline.pttl(key)

    def _read(self) -> None:
        """What is there, as a worker reads it."""
        with suppress(MirrorUnavailableError):
            pools = self._loop.run_until_complete(self._mirror.read([SKU], NOW_MS))
            for pool in pools.values():
                _expect(min(pool.free, pool.version, pool.available or 0) >= 0, f"a pool that cannot be: {pool}")


class State(msgspec.Struct):
    """A key: the fields of a hash, or its text, and for how long it lives in ms, -1 for ever, GONE."""

    fields: dict[bytes, bytes]
    text: bytes
    lives_ms: int


def _state(replies: Sequence[Any]) -> State:
    # A key of another type has no fields, or no text.
    fields, text = (None if isinstance(reply, ResponseError) else reply for reply in replies[:2])
    return State(fields or {}, text or b"", replies[2])


def _same(was: State, now: State) -> bool:
    """But for time that has passed."""
    kept = (was.lives_ms < 0) == (now.lives_ms < 0) and now.lives_ms <= max(was.lives_ms, -1)
    return was.fields == now.fields and was.text == now.text and kept


def _judge_pushed(was: State, now: State) -> None:
    """push.lua: see its head."""
    if now.lives_ms == GONE:  # It was good for a moment only.
        return
    shards, known = _shards(now), _shards(was)
    for name, value in now.fields.items():
        if value != was.fields.get(name) and name != b"pool":
            _expect(name.isdigit() and name in shards, f"shard {name!r} is {value!r}")
    for name, (version, _) in known.items():
        _expect(shards.get(name, (-1, 0))[0] >= version, f"the version of shard {name!r} has fallen")
    if (pool := now.fields.get(b"pool")) is not None:
        found = _PAIR.fullmatch(pool)
        sums = [sum(shard[at] for shard in shards.values()) for at in (0, 1)]
        whole = sorted(int(name) for name in shards) == list(range(len(shards)))
        _expect(found is not None and whole, f"pool {pool!r} of shards {sorted(shards)}")
        exact = sums[0] <= EXACT_MAX and sums[1] <= EXACT_MAX
        _expect(not exact or [*map(int, pool.split())] == sums, f"pool {pool!r}, and the sums are {sums}")
    _expect(0 <= now.lives_ms <= 2 * EXACT_MAX, f"the key lives for {now.lives_ms} ms")


def _judge_available(was: State, now: State) -> None:
    """push_available.lua: see its head."""
    if now == was or now.lives_ms == GONE:
        return
    said, known = now.fields.get(b"available"), was.fields.get(b"available")
    if said != known:
        found = _PAIR.fullmatch(said or b"")
        _expect(found is not None, f"available is {said!r}")
        before = _PAIR.fullmatch(known or b"")
        _expect(before is None or int((said or b"").split()[0]) >= int(before[1]), "the later time was not kept")
    _expect({**now.fields, b"available": b""} == {**was.fields, b"available": b""}, "another field was changed")
    _expect(now.lives_ms >= 0, "the key lives for ever")


def _judge_charged(_was: State, now: State) -> None:
    """gcra.lua: see its head."""
    found = _PAIR.fullmatch(now.text) or re.fullmatch(rb"(-[0-9]+) ([0-9]+)", now.text)
    _expect(found is not None, f"a time is {now.text!r}")
    _expect(now.lives_ms > 0, f"a time lives for {now.lives_ms} ms")


JUDGES = (_judge_pushed, _judge_available, _judge_charged)


def _judge_told(reply: Any, count: int) -> None:
    whole = isinstance(reply, list) and len(reply) == count and all(isinstance(one, int) for one in reply)
    _expect(whole, f"{count} meters were charged, and {reply!r} told")


def _shards(state: State) -> Mapping[bytes, tuple[int, int]]:
    """(version, free) of those that are well formed."""
    found = {name: _SHARD.fullmatch(value) for name, value in state.fields.items() if name.isdigit()}
    return {name: (int(match[1]), int(match[2])) for name, match in found.items() if match is not None}


def _expect(holds: Any, otherwise: str) -> None:
    if not holds:
        raise FindingError(otherwise)


def _numbers() -> st.SearchStrategy[bytes]:
    plain = st.integers(0, 50).map(lambda number: b"%d" % number)
    return st.one_of(*[plain] * 14, st.sampled_from(ODD), st.binary(max_size=4))


def _hashes() -> st.SearchStrategy[list[tuple[bytes, bytes]]]:
    """What stands in a SKU's key: shards, and what nobody has put there."""
    shards = st.builds(lambda *numbers: b"%d %d %d" % numbers, *[st.integers(0, 50)] * 2, st.just(NOW_MS))
    names = st.sampled_from([b"0", b"1", b"2", b"7", b"pool", b"available", b"-1", b"1.5", b"x", b"0x1", b"\xff"])
    values = shards | shards | st.sampled_from([b"", b"1 2", b"nan nan nan", b"-1 -1 -1", b"1 2 3 4", b"9" * 400])
    text = st.just([(b"", b"1 2")])
    return st.lists(st.tuples(names, values), max_size=4, unique_by=lambda pair: pair[0]) | text


def _pushes() -> st.SearchStrategy[Call]:
    plain = st.lists(st.tuples(*[_numbers()] * 3), max_size=4).map(lambda told: [*itertools.chain.from_iterable(told)])
    many = st.just([b"%d" % number for at in range(256) for number in (at, 1, 1)])
    ends = st.sampled_from([0, 0, 0, 1, 2])
    times = st.just(b"5000") | st.just(b"5000") | _numbers()
    told = st.builds(lambda ttl, told, less: [ttl, *told][: len(told) + 1 - less], times, plain | plain | many, ends)
    return st.builds(Call, st.just(IS_PUSH), _one_key(), _hashes(), told)


def _availables() -> st.SearchStrategy[Call]:
    told = st.tuples(st.just(b"5000") | _numbers(), _numbers(), _numbers()).map(list) | st.lists(_numbers(), max_size=4)
    return st.builds(Call, st.just(IS_AVAILABLE), _one_key(), _hashes(), told)


def _charges() -> st.SearchStrategy[Call]:
    doubles = st.sampled_from(DOUBLES) | st.integers(0, 10**9).map(float)
    packed = st.lists(st.tuples(doubles, doubles, doubles), max_size=3).map(
        lambda charges: b"".join(struct.pack("<ddd", *charge) for charge in charges)
    )
    told = st.builds(
        lambda numbers, less: [numbers[: max(len(numbers) - less, 0)]], packed, st.sampled_from([0, 0, 0, 1, 24])
    )
    times = (b"", b"5 5", b"1800000000000000 1700000000000000", b"-5 5", b"9" * 300 + b" 1", b"nan nan")
    texts = st.sampled_from(times)
    before: st.SearchStrategy[list[tuple[bytes, bytes]]] = (
        st.just([]) | texts.map(lambda text: [(b"", text)]) | st.just([(b"f", b"v")])
    )
    return st.builds(Call, st.just(IS_RATE), st.integers(0, 3), before, told | st.lists(_numbers(), max_size=2))


def _one_key() -> st.SearchStrategy[int]:
    return st.sampled_from([1] * 20 + [0])
