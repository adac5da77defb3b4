"""The parts of the documents, and the example of the settings' file, that are made from the code: `python -m
deploy.readme` writes them, a test compares them.

A part stands between `<!-- NAME -->` and `<!-- /NAME -->`, in each document that names it in DOCUMENTS.
"""

import json
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench.report import proof
from bench.report.files import markdown, summary
from core_ext.codes import FAULTS, PROBLEMS
from gateway.domain.access import SCOPES
from gateway.settings import LIVE, RULES, SECTIONS, is_live

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
CHINESE = ROOT / "deploy" / "README.zh-CN.md"
REFERENCE = ROOT / "deploy" / "reference.md"
MEASURING = ROOT / "deploy" / "operations" / "measuring.md"
PICTURES = ROOT / "deploy" / "pictures"
BENCH = PICTURES / "bench.json"
SCALE = PICTURES / "scale.json"
GROWTH = PICTURES / "growth.json"
PROOF = ROOT / "deploy" / "operations" / "proof.md"
PROOFS = proof.Records(*(PICTURES / f"{name}.json" for name in ("faults", "soak", "simulation", "fuzz", "slow")))
RECORDS = (BENCH, SCALE, GROWTH, *([PROOFS.matrix] if PROOFS.matrix.exists() else ()))
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
    """Every setting, its default, when a change of it is in force, and its line of documentation."""
    rows = [
        f"| `{field.key}` | {_shown(field.default)} | {field.applies} | {field.text} |"
        for field in _fields_with_rules()
    ]
    return "\n".join(["| setting | default | kind | |", "| --- | --- | --- | --- |", *rows])


def example() -> str:
    """`floodgate.toml` with every setting at its default, commented out."""
    lines = [
        "# Every setting at its default. Remove the # of what you change. Environment and flags win over this file.",
        "# Live settings only seed the ledger: once it has them, `floodgate config apply FILE` changes them.",
    ]
    previous = ""
    for field in _fields():
        section, _, name = field.key.partition(".")
        if section != previous:
            lines += [
                "",
                f"[{section}]" + ("  # live" if LIVE.get(section) == SECTIONS[section].__struct_fields__ else ""),
            ]
            previous = section
        lines.append(f"# {field.text}")
        lines += _example_rule(field.key) if field.key in RULES else [_example_line(name, field)]
    return "\n".join(lines) + "\n"


def _example_line(name: str, field: "Field") -> str:
    """One setting; a live one in a section of which others are not says so."""
    section, _, _ = field.key.partition(".")
    partly = is_live(field.key) and LIVE[section] != SECTIONS[section].__struct_fields__
    return f"# {name} = {json.dumps(field.default)}" + ("  # live" if partly else "")


def _example_rule(key: str) -> list[str]:
    lines = [f"# [[{key}]]"]
    for field in _rule_fields(key):
        name = field.key.rpartition(".")[2]
        lines += [f"# {name} = {json.dumps(field.example)}  # {field.text}"]
    return lines


def bench() -> str:
    """What was measured last, from its record."""
    return markdown(BENCH)


def scale() -> str:
    """What growth cost when it was measured last."""
    return "\n\n".join(markdown(record) for record in (GROWTH, SCALE))


def headline() -> str:
    """What that comes to."""
    return summary(BENCH)


def proofs() -> str:
    """What came of every proof when it ran last."""
    return proof.summary(PROOFS)


def matrix() -> str:
    return proof.matrix_table(PROOFS.matrix)


def guards() -> str:
    return proof.guards_table(PROOFS.matrix)


def worlds() -> str:
    return proof.worlds_table(PROOFS.simulated)


def inputs() -> str:
    return proof.inputs_table(PROOFS.fuzzed)


PARTS = {
    "codes": codes,
    "faults": faults,
    "scopes": scopes,
    "settings": settings,
    "bench": bench,
    "headline": headline,
    "scale": scale,
    "proofs": proofs,
    "matrix": matrix,
    "guards": guards,
    "worlds": worlds,
    "inputs": inputs,
}
DOCUMENTS = {
    README: ("proofs", "headline", "codes"),
    CHINESE: ("proofs", "headline", "codes"),
    REFERENCE: ("faults", "scopes", "settings"),
    MEASURING: ("bench", "scale"),
    PROOF: ("proofs", "matrix", "guards", "worlds", "inputs"),
}


def filled(document: Path) -> str:
    """A document with its parts made anew."""
    text = document.read_text()
    for name in DOCUMENTS[document]:
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        assert pattern.search(text), f"{document} has no part {name}"
        text = pattern.sub(lambda found, part=PARTS[name]: f"{found.group(1)}{part()}\n{found.group(2)}", text)  # type: ignore[misc]
    return text


class Field(NamedTuple):
    """A setting, or a key of a rule: `applies` is `start` or `live`; `example` is given for keys of rules."""

    key: str
    default: object
    applies: str
    text: str
    example: object = None


def _fields() -> Iterator[Field]:
    for section, kind in SECTIONS.items():
        yield from _documented(section, kind)


def _rule_fields(key: str) -> Iterator[Field]:
    return _documented(key, RULES[key])


def _fields_with_rules() -> Iterator[Field]:
    for field in _fields():
        yield field
        if field.key in RULES:
            yield from _rule_fields(field.key)


def _documented(prefix: str, kind: type[msgspec.Struct]) -> Iterator[Field]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        meta = next(one for one in typing.get_args(hints[field.name]) if isinstance(one, msgspec.Meta))
        assert meta.description, f"{prefix}.{field.name} is not documented"
        example = meta.examples[0] if meta.examples else None
        key = f"{prefix}.{field.name}"
        applies = "live" if prefix in RULES or is_live(key) else "start"
        yield Field(key, field.default, applies, meta.description, example)


def _shown(default: object) -> str:
    return "" if default in ("", (), msgspec.NODEFAULT) else f"`{default}`"


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(filled(document))
    EXAMPLE.write_text(example())
