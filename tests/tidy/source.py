"""The project's source as syntax trees, for the tests of the house rules. It reads files and runs none of them."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("core_ext", "persistence", "gateway", "deploy", "bench")


class Module(NamedTuple):
    """A file of ours; `path` is relative to the project's folder."""

    path: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.path.split("/")[0]

    def is_under(self, *folders: str) -> bool:
        """Whether it is one of these files, or lies in one of these folders."""
        return any(self.path == folder or self.path.startswith(f"{folder}/") for folder in folders)


@cache
def modules() -> tuple[Module, ...]:
    """Every Python file of the packages."""
    return tuple(_read(path) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))


def _read(path: Path) -> Module:
    text = path.read_text()
    return Module(str(path.relative_to(ROOT)), text, ast.parse(text))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; `from a import b` counts as both `a` and `a.b`, since b may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "a relative import"
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_within(module: str, *packages: str) -> bool:
    """Whether a dotted module is one of these packages or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every call of a name: `time.time`, `print`, `self.now`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)
