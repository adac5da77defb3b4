"""Calls that are not made here, each with what to use instead and the places where it is right after all."""

import ast
from typing import NamedTuple

import pytest

from tests.tidy.source import PACKAGES, ROOT, Module, calls, imports, is_within, modules


class Ban(NamedTuple):
    """`names` are dotted calls; `allowed` is file or folder -> why it is right there."""

    names: tuple[str, ...]
    instead: str
    allowed: dict[str, str]


BANS = {
    "wall clock": Ban(
        ("datetime.now", "datetime.utcnow", "dt.datetime.now", "dt.datetime.utcnow", "time.time", "time.time_ns"),
        "gateway.clock.Clock, or PostgreSQL's clock_timestamp()",
        {
            "gateway/clock.py": "it is the clock",
            "gateway/cli": "a command counts from its user's clock",
            "bench": "a report is dated",
            "deploy": "beside the road",
        },
    ),
    "printing": Ban(
        ("print", "sys.stdout.write", "pprint"),
        "structlog.get_logger",
        {"gateway/cli": "a command prints", "deploy": "the local stack speaks to its user", "bench": "it reports"},
    ),
    "tasks without an owner": Ban(
        ("asyncio.create_task", "asyncio.ensure_future", "loop.create_task"),
        "gateway.tasks.Tasks, which keeps, counts and ends them",
        {
            "gateway/tasks.py": "it is their owner",
            "gateway/cli": "a command awaits its own",
            "deploy": "examples and the local stack",
            "bench": "a generator awaits its own",
        },
    ),
    "blocking": Ban(
        ("time.sleep",),
        "asyncio.sleep",
        {"gateway/cli": "no loop runs there", "deploy": "no loop runs there", "bench": "no loop runs there"},
    ),
    "another loop": Ban(
        ("asyncio.run", "asyncio.get_event_loop", "asyncio.new_event_loop"),
        "asyncio.get_running_loop, or gateway.process.run",
        {"gateway/cli": "a command runs its own", "deploy": "examples", "bench": "it runs its own"},
    ),
}
# File -> why it may catch everything: task loops, which count or log and decide, and the edge's last answer.
CATCH_ALL = {
    "gateway/tasks.py": "the loops of the worker: counted, logged, started again",
    "gateway/lookup.py": "who asked may fail: the others have to hear the answer all the same",
    "gateway/edge/exchange.py": "as hot.py, without a task for each order",
    "gateway/edge/show.py": "as hot.py: a bug is logged with the request's id and answered without internals",
    "gateway/edge/bulk.py": "as hot.py, for a line: the others go on",
    "gateway/edge/hot.py": "a bug is logged with the request's id and answered without internals",
}
# File or folder -> why numbers that can be foretold are good enough there.
RANDOM = {
    "bench": "a workload is seeded",
    "deploy/local/ports.py": "picks a free port",
    "gateway/cli/edge.py": "spreads retries",
}
LOOSE_ENDS = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")


def banned(module: Module, ban: Ban) -> list[str]:
    if module.is_under(*ban.allowed):
        return []
    return [f"{module.path}:{line} {name}: use {ban.instead}" for line, name in calls(module.tree) if name in ban.names]


@pytest.mark.parametrize("name", BANS)
def test_banned_calls_are_not_made(name: str) -> None:
    assert [stray for module in modules() for stray in banned(module, BANS[name])] == []


@pytest.mark.parametrize("name", BANS)
def test_banned_calls_are_allowed_only_where_files_are(name: str) -> None:
    assert [path for path in BANS[name].allowed if not (ROOT / path).exists()] == []


def test_banned_randomness_is_not_imported() -> None:
    strays = [
        f"{module.path}:{line} imports {name}: use core_ext.ids.new_id, secrets or os.urandom"
        for module in modules()
        if not module.is_under(*RANDOM)
        for line, name in imports(module.tree)
        if is_within(name, "random", "uuid.uuid1")
    ]
    assert strays == []


def catches_all(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes everything and does not raise it again."""
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    takes_all = any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in kinds)
    return takes_all and not any(isinstance(node, ast.Raise) for node in ast.walk(handler))


def test_exceptions_are_caught_by_name_outside_the_task_loops() -> None:
    strays = [
        f"{module.path}:{node.lineno}"
        for module in modules()
        if module.package in {"core_ext", "persistence", "gateway"} and not module.is_under(*CATCH_ALL)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and catches_all(node)
    ]
    assert strays == []


@pytest.mark.parametrize("path", CATCH_ALL)
def test_task_loops_that_catch_everything_log_it(path: str) -> None:
    (module,) = [module for module in modules() if module.path == path]
    handlers = [node for node in ast.walk(module.tree) if isinstance(node, ast.ExceptHandler) and catches_all(node)]
    assert handlers, "it needs no place in the list"
    assert all("log.exception" in ast.unparse(handler) for handler in handlers)


def test_source_has_no_loose_ends() -> None:
    files = [
        path
        for folder in (*PACKAGES, "tests")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".pyx", ".pxd", ".sql", ".lua"}
    ]
    strays = [f"{path.relative_to(ROOT)}: {mark}" for path in files for mark in LOOSE_ENDS if mark in path.read_text()]
    assert strays == []


def test_sql_of_the_road_never_waits_in_the_database() -> None:
    strays = [str(path) for path in (ROOT / "persistence").rglob("*.sql") if "pg_sleep" in path.read_text()]
    assert strays == []
