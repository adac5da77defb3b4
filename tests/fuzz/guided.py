"""The engine that is guided by coverage: atheris, which is libFuzzer, over our own Python with a counter at each
branch.

libFuzzer sees nothing of compiled modules that were not built for it. So the process runs the readable twins of
core_ext, whose branches it sees, and the target compares what they say with what the compiled ones do.
"""

import importlib
import importlib.util
import os
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tests.fuzz.drawn import tell, try_batch
from tests.fuzz.progress import Progress
from tests.fuzz.target import Target

COUNTED = ["gateway", "core_ext", "persistence"]
# The twins, and not the modules that libFuzzer cannot look into.
ENVIRONMENT = {"FLOODGATE_CORE": "reference"}
LENGTH_BYTES_MAX = 70_000
HUNG_S = 20
FAILING = "failing"


def is_installed() -> bool:
    """Whether there is an atheris for this Python."""
    return importlib.util.find_spec("atheris") is not None


def load(module: str) -> Any:
    """A module, with all of ours that it imports counted. Nothing of ours may have been imported before."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=COUNTED):
        return importlib.import_module(module)


def run(target: Target[Any], progress: Progress, number: int, folder: Path) -> None:
    """Try inputs until `progress` has as many as it is to have, and end the process: libFuzzer never returns."""
    atheris = importlib.import_module("atheris")
    corpus = _ensure_folder(folder / "corpus")
    for at, one in enumerate(target.corpus()):
        (corpus / f"seed-{at}").write_bytes(one)
    words = folder / "dictionary"
    words.write_text("".join(_entries(target.dictionary)))

    def try_one(data: bytes) -> None:
        batch = [target.of_bytes(data)]
        try:
            try_batch(target, progress, batch)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            traceback.print_exc()
            (folder / FAILING).write_bytes(msgspec.msgpack.encode(batch))
            tell(progress, error)
            os._exit(1)
        if progress.is_over:
            progress.end()
            os._exit(0)  # What is open belongs to this process alone.

    options = [f"-seed={number or 1}", f"-dict={words}", f"-max_len={LENGTH_BYTES_MAX}", f"-timeout={HUNG_S}"]
    options += [f"-artifact_prefix={folder}/", "-rss_limit_mb=0", "-print_final_stats=0", "-verbosity=0"]
    atheris.Setup(["fuzz", *options, str(corpus)], try_one)
    atheris.Fuzz()


def _ensure_folder(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _entries(words: Iterable[bytes]) -> Iterable[str]:
    """As libFuzzer reads them."""
    return ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in words if word)
