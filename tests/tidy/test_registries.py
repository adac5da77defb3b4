"""The registries hold what is used, and what is used stands in them: codes, settings, migrations, version."""

import ast
import tomllib
from collections.abc import Iterator
from typing import get_type_hints

import pytest
from alembic.script import ScriptDirectory
from msgspec import Meta

from core_ext.codes import FAULTS, PROBLEMS
from gateway.domain.access import SCOPES
from gateway.settings import SECTIONS
from persistence.postgres import migrate
from tests.tidy.source import ROOT, modules

SETTINGS = [f"{section}.{key}" for section, kind in SECTIONS.items() for key in kind.__struct_fields__]


def constants(package: str, but: str = "") -> set[str]:
    """Every text that stands in the code of a package."""
    return {
        text for module in modules() if module.package == package and module.path != but for text in _texts(module.tree)
    }


def _texts(tree: ast.AST) -> Iterator[str]:
    return (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def refusals() -> Iterator[tuple[str, str]]:
    """(place, code) of every refusal that is made with a code written down."""
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"Refusal", "refuse"} and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    yield f"{module.path}:{node.lineno}", first.value


@pytest.mark.parametrize("code", PROBLEMS)
def test_codes_of_problems_are_given_somewhere(code: str) -> None:
    assert code in constants("gateway")


@pytest.mark.parametrize("code", FAULTS)
def test_codes_of_faults_are_given_somewhere(code: str) -> None:
    assert code in constants("core_ext", but="core_ext/codes.py") | constants("gateway")


def test_codes_of_refusals_stand_in_the_registry() -> None:
    assert [(place, code) for place, code in refusals() if code not in PROBLEMS] == []


@pytest.mark.parametrize("key", SETTINGS)
def test_settings_have_a_line_of_documentation(key: str) -> None:
    section, _, name = key.partition(".")
    hint = get_type_hints(SECTIONS[section], include_extras=True)[name]
    descriptions = [meta.description for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]
    assert len(descriptions) == 1
    assert descriptions[0]
    assert "\n" not in descriptions[0]


@pytest.mark.parametrize("key", SETTINGS)
def test_settings_are_read_somewhere(key: str) -> None:
    section, _, name = key.partition(".")
    readers = [
        module.path for module in modules() if f".{name}" in module.text and module.path != "gateway/settings.py"
    ]
    assert readers, f"{section}.{name} changes nothing"


@pytest.mark.parametrize("scope", SCOPES)
def test_scopes_are_explained(scope: str) -> None:
    assert SCOPES[scope]


def test_migrations_have_one_head() -> None:
    heads = ScriptDirectory.from_config(migrate._config()).get_heads()
    assert heads == [migrate.head()]


def test_migrations_run_every_numbered_file_of_sql() -> None:
    folder = ROOT / "persistence" / "postgres"
    scripts = [ast.parse(path.read_text()) for path in (folder / "migrations" / "versions").glob("*.py")]
    run = {text for script in scripts for text in _texts(script)}
    assert {path.stem for path in (folder / "sql").glob("[0-9]*.sql")} - run == set()


def test_ignored_rules_have_a_reason() -> None:
    """In pyproject.toml each rule that is left out stands beside its reason, as each noqa stands beside its own."""
    inside = False
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        inside = (inside or "ignore" in line) and not line.startswith("]")
        if inside and line.startswith('  "'):
            assert "# " in line, line
    bare = [
        f"{module.path}: {line.strip()}"
        for module in modules()
        for line in module.text.splitlines()
        if "# noqa" in line and " - " not in line.split("# noqa", 1)[1]
    ]
    assert bare == []


def test_packages_of_the_layout_are_packaged() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {f"{module.package}*" for module in modules()} <= set(included)
