"""The arrows of the layout: who may import whom."""

import ast

import pytest

from tests.tidy.source import Module, functions, imports, is_within, modules

OURS = ("core_ext", "persistence", "gateway", "deploy", "bench", "tests")
# What a pure room must not touch: anything that waits, looks at a clock or speaks to the outside.
IMPURE = (
    "asyncio",
    "socket",
    "time",
    "threading",
    "subprocess",
    "selectors",
    "asyncpg",
    "nats",
    "redis",
    "aiohttp",
    "granian",
    "litestar",
    "uvloop",
    "structlog",
    "logging",
)
# Room -> what of ours it may import, beside itself. What is not named here may import whatever the others let it.
MAY_IMPORT = {
    "core_ext": (),
    "persistence": (),
    "gateway/domain": ("core_ext",),
    "gateway/settings.py": ("gateway.settings_errors", "gateway.settings_sense"),
    "gateway/settings_errors.py": (),
    "gateway/settings_sense.py": ("gateway.settings_errors",),
}
# Folder or file of the gateway -> rooms that it must not know, because they know it.
MUST_NOT_IMPORT = {
    "gateway/edge": ("gateway.api", "gateway.app", "gateway.cli", "gateway.committer", "gateway.steward", "deploy"),
    "gateway/api": ("gateway.app", "gateway.cli", "gateway.committer", "gateway.steward", "deploy"),
    "gateway/steward": ("gateway.app", "gateway.cli", "gateway.edge", "gateway.api", "gateway.admission", "deploy"),
    "gateway/admission.py": ("gateway.committer", "gateway.publisher", "gateway.edge", "gateway.api"),
    "gateway/leases.py": ("gateway.admission", "gateway.batch", "gateway.committer", "gateway.edge"),
    "gateway/batch.py": ("gateway.admission", "gateway.committer", "gateway.leases", "gateway.edge"),
    "gateway/publisher.py": ("gateway.admission", "gateway.committer", "gateway.edge"),
}
# Only these put the parts of a worker together; whoever else needs one is given it.
WIRING = ("gateway/app.py",)
PARTS = (
    "gateway.admission.Admission",
    "gateway.committer.Committer",
    "gateway.heart.Heart",
    "gateway.following.Following",
    "persistence.postgres.ledger.Ledger",
)


def found(module: Module, *packages: str) -> list[str]:
    return [f"{module.path}:{line} imports {name}" for line, name in imports(module.tree) if is_within(name, *packages)]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_arrows_of_a_room_lead_only_where_they_may(room: str) -> None:
    own = room.replace("/", ".")
    strays = [
        stray
        for module in modules()
        if module.is_under(room)
        for stray in found(module, *OURS)
        if not is_within(stray.split(" imports ")[1], own, *MAY_IMPORT[room])
    ]
    assert strays == []


@pytest.mark.parametrize("room", MUST_NOT_IMPORT)
def test_arrows_never_lead_back(room: str) -> None:
    assert [
        stray for module in modules() if module.is_under(room) for stray in found(module, *MUST_NOT_IMPORT[room])
    ] == []


@pytest.mark.parametrize("room", ["core_ext", "gateway/domain"])
def test_pure_rooms_import_nothing_that_waits_or_looks_at_a_clock(room: str) -> None:
    assert [stray for module in modules() if module.is_under(room) for stray in found(module, *IMPURE)] == []


def test_deploy_is_known_to_the_command_line_alone() -> None:
    strays = [stray for module in modules() if module.package == "gateway" for stray in found(module, "deploy")]
    assert [stray for stray in strays if not stray.startswith("gateway/cli/")] == []


def test_packages_do_not_know_their_tests() -> None:
    assert [stray for module in modules() for stray in found(module, "tests", "pytest", "hypothesis")] == []


def test_parts_of_a_worker_are_put_together_in_one_place() -> None:
    names = {part.rpartition(".")[2] for part in PARTS}
    makers = [
        f"{module.path}:{node.lineno} makes {node.func.id}"
        for module in modules()
        if module.package == "gateway" and not module.is_under(*WIRING)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names
    ]
    assert makers == []


def test_imports_stand_at_the_top_of_their_file() -> None:
    inside = [
        f"{module.path}:{node.lineno} in {function.name}"
        for module in modules()
        for function in functions(module.tree)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert inside == []


def test_imports_are_absolute() -> None:
    relative = [
        f"{module.path}:{node.lineno}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []
