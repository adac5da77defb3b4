"""The interface of the last release, kept beside the code as `openapi.json` and `asyncapi.json`, without examples. A
test compares what the code gives today with it.

`python -m deploy.contracts.release` writes both for a release. It refuses a change that would break a client, unless it
is told `--breaking` that this is meant.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from litestar import Litestar

from deploy.contracts.breaking import asyncapi_breaks, openapi_breaks
from gateway import api
from gateway.api import asyncapi, openapi
from gateway.settings import Settings

FOLDER = Path(__file__).parent
Document = dict[str, Any]


class Contract(NamedTuple):
    """A document: how it is made today, and what a change of it breaks."""

    make: Callable[[], Document]
    breaks: Callable[[Document, Document], list[str]]


def _openapi() -> Document:
    document: Document = _bare(openapi.build(Litestar(api.HANDLERS, openapi_config=None).routes, Settings()))
    return document


def _asyncapi() -> Document:
    settings = Settings()
    document: Document = _bare(asyncapi.build(settings.nats, f"/floodgate/{settings.installation.name}"))
    return document


def _bare(part: Any) -> Any:
    """The same without examples, as JSON has it."""
    if isinstance(part, dict):
        return {str(name): _bare(inner) for name, inner in part.items() if name not in ("example", "examples")}
    return [_bare(inner) for inner in part] if isinstance(part, (list, tuple)) else part


CONTRACTS = {"openapi": Contract(_openapi, openapi_breaks), "asyncapi": Contract(_asyncapi, asyncapi_breaks)}


def released(name: str, folder: Path = FOLDER) -> Document:
    """The document of the last release."""
    document: Document = json.loads((folder / f"{name}.json").read_text())
    return document


def breaks(name: str, folder: Path = FOLDER) -> list[str]:
    """What the code of today would break for clients of the last release; nothing when there was none."""
    contract = CONTRACTS[name]
    is_first = not (folder / f"{name}.json").exists()
    return [] if is_first else contract.breaks(released(name, folder), contract.make())


def main(arguments: list[str], folder: Path = FOLDER) -> int:
    """Write the documents. Returns 1, and writes none, when a client would break."""
    found = (
        [] if "--breaking" in arguments else [f"{name}: {line}" for name in CONTRACTS for line in breaks(name, folder)]
    )
    if found:
        sys.stderr.write("\n".join([*found, "Nothing is written. Is this meant? Then: --breaking\n"]))
        return 1
    for name, contract in CONTRACTS.items():
        text = json.dumps(contract.make(), ensure_ascii=False, indent=1)
        (folder / f"{name}.json").write_text(f"{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
