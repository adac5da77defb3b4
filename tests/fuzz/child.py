"""One piece of the fuzzing, in a process of its own: `python -m tests.fuzz.child TARGET ENGINE INPUTS SEED FOLDER`.
What it finds stands in the folder, whatever becomes of the process.
"""

import importlib
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import msgspec

from tests.fuzz import drawn, guided
from tests.fuzz.memory import MIB
from tests.fuzz.progress import Progress
from tests.fuzz.target import FindingError, Target

ATHERIS = "atheris"
CLASSES = {
    "body": ("tests.fuzz.body", "BodyTarget"),
    "headers": ("tests.fuzz.headers", "HeadersTarget"),
    "journal": ("tests.fuzz.journal", "JournalTarget"),
    "lua": ("tests.fuzz.lua", "LuaTarget"),
}


def open_target(name: str, *, counted: bool = False) -> Target[Any]:
    """A target by its name, with all that it needs; the caller closes it."""
    module, kind = CLASSES[name]
    loaded = guided.load(module) if counted else importlib.import_module(module)
    target: Target[Any] = getattr(loaded, kind)()
    return target


def main(name: str, engine: str, count: int, number: int, folder: Path) -> int:
    signal.signal(signal.SIGTERM, _leave)
    target = open_target(name, counted=engine == ATHERIS)
    try:
        target.limit_memory()
        progress = Progress(folder, count, target.pids())
        if engine == ATHERIS:
            guided.run(target, progress, number, folder)
        failing = drawn.run(target, progress, number)
        if failing:
            (folder / guided.FAILING).write_bytes(msgspec.msgpack.encode(failing))
        else:
            finish(target, progress)
        progress.end()
    finally:
        target.close()
    return 0


def finish(target: Target[Any], progress: Progress) -> None:
    """Look at what can only be seen in the end."""
    progress.save()
    try:
        _check_memory(target, progress)
        target.finish()
    except FindingError as finding:
        traceback.print_exc()
        drawn.tell(progress, finding)


def _check_memory(target: Target[Any], progress: Progress) -> None:
    grown, most = progress.tally.last_bytes - progress.tally.warm_bytes, target.growth_bytes_max
    if grown > most:
        raise FindingError(f"memory has grown by {grown / MIB:.0f} MiB; {most / MIB:.0f} may be", "memory")


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])))
