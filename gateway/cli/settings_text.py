"""How settings are shown: as values, with their origins, and as the lines that a change takes away and adds.

A secret is never shown, nor is what stands before the `@` of a server's address.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from gateway.settings import RULES, SECTIONS, Settings, is_live, value_of
from gateway.settings_errors import visible_text

DEFAULT = "default"


class Shown(NamedTuple):
    """A setting in JSON: `applies` is `start` or `live`."""

    setting: str
    value: Any
    origin: str
    applies: str


def shown(settings: Settings, origins: Mapping[str, str]) -> list[Shown]:
    """Every setting, in the order of the file."""
    keys = (f"{section}.{name}" for section, kind in SECTIONS.items() for name in kind.__struct_fields__)
    return [
        Shown(key, visible(settings, key), origins.get(key, DEFAULT), "live" if is_live(key) else "start")
        for key in keys
    ]


def visible(settings: Settings, key: str) -> Any:
    """The value as JSON may show it."""
    value = value_of(settings, key)
    if isinstance(value, str):
        return visible_text(key, value)
    return msgspec.to_builtins(value)


def rows(found: Iterable[Shown]) -> Iterator[tuple[str, str, str]]:
    """setting, value, origin for a table; each rule has a row of its own."""
    for setting, value, origin, _ in found:
        for text in _rules(value) if setting in RULES else [_text(value)]:
            yield setting, text, origin


def changed_lines(before: Settings, after: Settings, keys: Iterable[str]) -> list[str]:
    """What the settings with these keys, which differ, lose (`- …`) and gain (`+ …`); a secret only differs."""
    found: list[str] = []
    for key in keys:
        lines = [*difflib.unified_diff(_lines(before, key), _lines(after, key), n=0, lineterm="")]
        found += [f"{line[0]} {line[1:]}" for line in lines[2:] if not line.startswith("@@")]
        if not lines:
            found.append(f"~ {key} differs")
    return found


def changes(before: Settings, after: Settings, keys: Iterable[str]) -> list[dict[str, Any]]:
    """The same as JSON."""
    return [{"setting": key, "from": visible(before, key), "to": visible(after, key)} for key in keys]


def _lines(settings: Settings, key: str) -> list[str]:
    """A setting as lines of a file of settings, a rule a line."""
    value = visible(settings, key)
    if key not in RULES:
        return [f"{key} = {json.dumps(value, ensure_ascii=False)}"]
    return [f"[[{key}]] {text}" for text in _rules(value)] if value else []


def _rules(value: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [
        ", ".join(f"{name} = {json.dumps(entry, ensure_ascii=False)}" for name, entry in rule.items()) for rule in value
    ]
    return found or ["-"]


def _text(value: object) -> str:
    return "-" if value == "" else str(value)
