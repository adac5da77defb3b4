"""The parts of the README, and the example of the settings' file, that are made from the code: `python -m
deploy.readme` writes them, a test compares them.

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`.
"""

import json
import re
import typing
from pathlib import Path

import msgspec

from core_ext.codes import FAULTS, PROBLEMS
from gateway.domain.access import SCOPES
from gateway.settings import SECTIONS

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
EXAMPLE = ROOT / "deploy" / "examples" / "floodgate.toml"


def codes() -> str:
    """Every problem's code, with its status and whether the same request may succeed later."""
    rows = [f"| {p.status} | `{p.name}` | {p.title} | {'yes' if p.retryable else ''} |" for p in PROBLEMS.values()]
    return "\n".join(["| status | code | meaning | retry |", "| --- | --- | --- | --- |", *rows])


def faults() -> str:
    """The codes of the entries of `errors`."""
    rows = [f"| `{fault.name}` | {fault.title} |" for fault in FAULTS.values()]
    return "\n".join(["| code | meaning |", "| --- | --- |", *rows])


def scopes() -> str:
    rows = [f"| `{scope}` | {meaning} |" for scope, meaning in SCOPES.items()]
    return "\n".join(["| scope | allows to |", "| --- | --- |", *rows])


def settings() -> str:
    """Every setting, its default, and its line of documentation."""
    rows = [f"| `{section}.{key}` | {_shown(default)} | {text} |" for section, key, default, text in _fields()]
    return "\n".join(["| setting | default | |", "| --- | --- | --- |", *rows])


def example() -> str:
    """`floodgate.toml` with every setting at its default, commented out."""
    lines = [
        "# Every setting at its default. Remove the # of what you change. Environment and flags win over this file."
    ]
    previous = ""
    for section, key, default, text in _fields():
        if section != previous:
            lines += ["", f"[{section}]"]
            previous = section
        lines += [f"# {text}", f"# {key} = {json.dumps(default)}"]
    return "\n".join(lines) + "\n"


PARTS = {"codes": codes, "faults": faults, "scopes": scopes, "settings": settings}


def filled(text: str) -> str:
    """The README with its parts made anew."""
    for name, part in PARTS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert pattern.search(text), f"the README has no part {name}"
        text = pattern.sub(lambda found, part=part: f"{found.group(1)}{part()}\n{found.group(2)}", text)  # type: ignore[misc]
    return text


def _fields() -> list[tuple[str, str, object, str]]:
    found = []
    for section, kind in SECTIONS.items():
        hints = typing.get_type_hints(kind, include_extras=True)
        for field in msgspec.structs.fields(kind):
            meta = next(one for one in typing.get_args(hints[field.name]) if isinstance(one, msgspec.Meta))
            assert meta.description, f"{section}.{field.name} is not documented"
            found.append((section, field.name, field.default, meta.description))
    return found


def _shown(default: object) -> str:
    return f"`{default}`" if default != "" else ""


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
    EXAMPLE.write_text(example())
