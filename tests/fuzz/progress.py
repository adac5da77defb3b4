"""What a piece of the fuzzing has done so far, kept where a crash does not take it along: a page that is shared with
whoever has started the process.

It holds a count, which shows that the piece still moves, and the inputs that are being tried, which a crash, or a hang,
is about. Counts by answer and memory are written to a file beside it, a few times a second.
"""

import mmap
import os
import struct
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.fuzz.memory import resident_bytes
from tests.fuzz.target import Answer

PAGE_BYTES = 16 << 20
WARM_SHARE = 0.2  # of the inputs, after which memory has to stay flat
SAVE_S = 0.5
_HEAD = struct.Struct("<QQ")  # inputs that were begun, bytes of the last ones
ANSWERS = "answers.json"
PAGE = "page"


class Tally(msgspec.Struct):
    """`inputs` that were looked at; memory in bytes, 0 before it was looked at; `finding` is what was wrong, `kind`
    how, and `seconds` as long as inputs were tried.
    """

    inputs: int = 0
    accepted: int = 0
    answers: dict[str, int] = {}
    warm_bytes: int = 0
    last_bytes: int = 0
    seconds: float = 0.0
    finding: str = ""
    kind: str = ""
    ended: bool = False


class Progress:
    """Of one piece, which tries `count` inputs; `pids` are those whose memory is looked at."""

    def __init__(self, folder: Path, count: int, pids: Sequence[int]) -> None:
        self.count = count
        self.tally = Tally()
        self._folder = folder
        self._pids = list(pids) or [os.getpid()]
        self._answers: Counter[str] = Counter()
        self._started = time.monotonic()
        self._saved = 0.0
        with (folder / PAGE).open("w+b") as file:
            file.truncate(PAGE_BYTES)
            self._page = mmap.mmap(file.fileno(), PAGE_BYTES)

    @property
    def is_over(self) -> bool:
        return self.tally.inputs >= self.count

    def begin(self, inputs: bytes) -> None:
        """These are tried now."""
        kept = inputs[: PAGE_BYTES - _HEAD.size]
        begun, _ = _HEAD.unpack_from(self._page)
        self._page[_HEAD.size : _HEAD.size + len(kept)] = kept
        _HEAD.pack_into(self._page, 0, begun + 1, len(kept))

    def done(self, answers: Sequence[Answer]) -> None:
        """So much has become of them."""
        tally = self.tally
        tally.inputs += len(answers)
        for answer in answers:
            tally.accepted += answer.accepted
            self._answers[answer.label] += 1
        if not tally.warm_bytes and tally.inputs >= WARM_SHARE * self.count:
            tally.warm_bytes = resident_bytes(self._pids)
        if time.monotonic() - self._saved >= SAVE_S or self.is_over:
            self.save()

    def fail(self, what: str, kind: str) -> None:
        """Something was found that must not be."""
        self.tally.finding, self.tally.kind = what, kind
        self.save()

    def end(self) -> None:
        """All has been tried."""
        self.tally.ended = True
        self.save()

    def save(self) -> None:
        """Write down what there is."""
        self._saved = time.monotonic()
        self.tally.answers = dict(self._answers)
        self.tally.last_bytes = resident_bytes(self._pids)
        self.tally.seconds = self._saved - self._started
        staged = self._folder / f"{ANSWERS}.new"
        staged.write_bytes(msgspec.json.encode(self.tally))
        staged.replace(self._folder / ANSWERS)


def read_tally(folder: Path) -> Tally:
    """As it was last written."""
    path = folder / ANSWERS
    return msgspec.json.decode(path.read_bytes(), type=Tally) if path.exists() else Tally()


def read_page(folder: Path) -> tuple[int, bytes]:
    """How often something was begun, and the inputs that were begun last."""
    path = folder / PAGE
    if not path.exists():
        return 0, b""
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return 0, b""
        begun, size = _HEAD.unpack(head)
        return begun, file.read(size)
