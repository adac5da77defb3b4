"""Writes the JSON Schemas of the event types to deploy/contracts/events, from the registry: `python -m
deploy.contracts.schemas`. A test compares the files with the registry.

The golden events beside them are written by nobody: they are what consumers have been sent, and never change.
"""

from pathlib import Path

import msgspec

from gateway.domain.event_types import EVENT_TYPES

FOLDER = Path(__file__).parent / "events"


def texts() -> dict[str, bytes]:
    """File name -> its content."""
    return {
        f"{kind.versioned}.json": msgspec.json.format(msgspec.json.encode(kind.schema()), indent=2) + b"\n"
        for kind in EVENT_TYPES.values()
    }


def main() -> None:
    for name, text in texts().items():
        (FOLDER / name).write_bytes(text)


if __name__ == "__main__":
    main()
