"""The fuzzing, for as long as a test may take: inputs drawn by hypothesis, the same in each run. `make fuzz` tries a
million, guided by coverage where atheris is installed. And that each target can fail.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import strategies as st

from deploy.local.servers import ValkeyServer
from gateway import admission
from persistence.journal import reading
from persistence.redis import mirror
from tests.fuzz import drawn
from tests.fuzz.body import BodyTarget
from tests.fuzz.child import finish
from tests.fuzz.headers import Gateway, HeadersTarget, is_whole, judged
from tests.fuzz.journal import JournalTarget
from tests.fuzz.lua import LuaTarget
from tests.fuzz.pieces import Piece, Running, plan
from tests.fuzz.pieces import run as run_pieces
from tests.fuzz.progress import Progress, Tally
from tests.fuzz.target import Answer, FindingError, Target
from tests.served import Served

SEED = 20261124
PROBLEM = b"HTTP/1.1 %d X\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n\r\n%b"


def tried(target: Target[Any], folder: Path, count: int) -> Tally:
    """What comes of so many inputs."""
    progress = Progress(folder, count, target.pids())
    try:
        if not drawn.run(target, progress, SEED):
            finish(target, progress)
    finally:
        target.close()
    return progress.tally


def test_bodies_of_any_kind_are_answered_as_documented(tmp_path: Path) -> None:
    tally = tried(BodyTarget(), tmp_path, 1500)
    assert tally.finding == ""
    assert {"201", "200", "400 malformed_json", "422 invalid", "503 ledger_away"} <= tally.answers.keys()


def test_journal_files_of_any_kind_give_what_was_written_or_nothing(tmp_path: Path) -> None:
    tally = tried(JournalTarget(), tmp_path, 1000)
    assert tally.finding == ""
    assert {"journal whole", "journal damaged", "journal torn", "journal unreadable"} <= tally.answers.keys()


def test_arguments_of_scripts_of_any_kind_are_taken_or_change_nothing(
    tmp_path: Path, redis_url: str, valkey_server: ValkeyServer
) -> None:
    tally = tried(LuaTarget(valkey_server), tmp_path, 800)
    assert tally.finding == ""
    assert {f"{script} {fate}" for script in ("push", "gcra") for fate in ("taken", "refused")} <= tally.answers.keys()


@pytest.fixture
async def served(postgres_url: str, nats_url: str) -> AsyncIterator[Served]:
    gateway = Served(postgres_url, nats_url)
    await gateway.prepare({"Z": 1})
    await gateway.start()
    yield gateway
    await gateway.close()


@pytest.mark.timeout(300)
def test_requests_of_any_kind_are_answered_or_closed(tmp_path: Path, served: Served) -> None:
    gateway = Gateway(served.url, served.token, lambda: sorted(served.workers()), served.log)
    tally = tried(HeadersTarget(gateway), tmp_path, 640)
    assert tally.finding == ""
    assert {"201", "400", "401 unauthenticated"} <= tally.answers.keys()


def test_bodies_that_end_in_an_error_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explain(_body: bytes, *, may_price: bool) -> None:
        raise RuntimeError(f"planted by the test, {may_price}")

    monkeypatch.setattr(admission, "_explain", explain)
    tally = tried(BodyTarget(), tmp_path, 1500)
    assert (tally.kind, "500 internal" in tally.finding) == ("500", True)


def test_journal_files_that_are_read_without_a_look_at_the_payload_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "is_payload", lambda *_: True)
    assert "nobody has written" in tried(JournalTarget(), tmp_path, 1500).finding


def test_scripts_that_keep_the_lower_version_are_found(
    tmp_path: Path, redis_url: str, valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = mirror.PUSH.text.replace("version >= shards[shard].version", "true")
    target = LuaTarget(valkey_server)
    monkeypatch.setattr("tests.fuzz.lua.SCRIPTS", (target.load(text), *(target.load(mirror.PUSH_AVAILABLE.text),) * 2))
    assert "has fallen" in tried(target, tmp_path, 1500).finding


@pytest.mark.parametrize(
    "received",
    [
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 502 X\r\n\r\n",
        b"HTTP/9 200 OK\r\n\r\n",
        b"nonsense",
        PROBLEM % (400, 19, b'{"code":"sold_out"}'),
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 X\r\n\r\n",
    ],
)
def test_answers_that_must_not_be_are_found(received: bytes) -> None:
    with pytest.raises(FindingError):
        judged(received)


def test_answers_are_whole_where_they_say_so() -> None:
    problem = PROBLEM % (409, 19, b'{"code":"sold_out"}')
    assert not any(is_whole(problem[:end]) for end in range(len(problem)))
    assert is_whole(problem)
    assert judged(problem) == Answer(accepted=False, label="409 sold_out")


class Number(msgspec.Struct, array_like=True):
    number: int


class Growing(Target[Number]):
    """Fails for large numbers, if it is told to; and says that it may not grow."""

    name = "growing"
    shape = Number
    growth_bytes_max = -(1 << 40)
    bad_from = 1 << 40

    def inputs(self) -> st.SearchStrategy[Number]:
        return st.builds(Number, st.integers(0, 1000))

    def check(self, batch: Any) -> list[Answer]:
        if any(one.number >= self.bad_from for one in batch):
            raise FindingError("planted by the test")
        return [Answer(accepted=True, label="fine")] * len(batch)


def test_input_that_fails_is_made_small(tmp_path: Path) -> None:
    target = Growing()
    target.bad_from = 70
    progress = Progress(tmp_path, 500, [])
    assert drawn.run(target, progress, SEED) == [Number(70)]
    assert (progress.tally.finding, progress.tally.kind) == ("planted by the test", "wrong")


def test_memory_that_grows_is_found(tmp_path: Path) -> None:
    tally = tried(Growing(), tmp_path, 100)
    assert (tally.inputs, tally.kind) == (100, "memory")


def test_process_that_ends_is_found(tmp_path: Path) -> None:
    (outcome,) = run_pieces([Piece("no target", "hypothesis", 10)], SEED, tmp_path, 1, lambda _: None)
    assert (outcome.status, outcome.tally.kind) == ("failed", "crash")
    assert "KeyError" in outcome.log


def test_process_that_stands_still_is_found_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.pieces.STARTING_S_MAX", -1.0)
    running = Running(Piece("journal", "hypothesis", 10**9), SEED, tmp_path / "piece")
    outcome = running.outcome()
    assert outcome is not None
    assert outcome.tally.kind == "hung"


@pytest.mark.parametrize("has_atheris", [True, False])
def test_plan_of_a_million_gives_each_target_enough(has_atheris: bool) -> None:  # noqa: FBT001 - of a parametrisation
    planned = plan(["body", "headers", "journal", "lua"], 1_000_000, has_atheris=has_atheris)
    of_target = {one.target: 0 for one in planned}
    for one in planned:
        of_target[one.target] += one.inputs
    assert min(of_target.values()) >= 100_000
    assert sum(of_target.values()) == 1_000_000
    assert has_atheris or not any(one.inputs for one in planned if one.engine == "atheris")
