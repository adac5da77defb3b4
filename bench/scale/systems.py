"""Systems for the parts of `floodgate bench scale`, each as fresh as `floodgate up --fresh` makes it, gone when it is
left; and the order in which places are measured.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from bench import environment
from bench.record import Environment
from bench.scenario import Bench, Say

CONNECTIONS = 256

Place = TypeVar("Place")


class Systems:
    """Below `folder`; the machine's folder for temporary files when None."""

    def __init__(self, say: Say, folder: Path | None, command: str) -> None:
        self.say = say
        self.folder = folder or Path(tempfile.gettempdir())
        self._command = command
        self._machine = environment.machine()
        self._where: Environment | None = None

    @contextmanager
    def fresh(self) -> Iterator[Bench]:
        """A bench whose system starts when it is first asked for."""
        with tempfile.TemporaryDirectory(prefix="floodgate-scale-", dir=self.folder) as scratch:
            Path(scratch).chmod(0o711)  # Root's PostgreSQL runs under another name and has to pass.
            with Bench(Path(scratch), self.say) as bench:
                yield bench
                if self._where is None and bench.started:
                    self._where = environment.describe(self._machine, bench.started, self._command, "")

    def where(self) -> Environment:
        """The machine, and the servers of the first system that was left in good order."""
        return self._where or environment.describe(self._machine, None, self._command, "")


def in_rounds(places: Sequence[Place], rounds: int) -> Iterator[tuple[int, Place]]:
    """Every place once a round, forwards and backwards in turn, so that what drifts in the machine falls on all."""
    for at in range(1, rounds + 1):
        yield from ((at, place) for place in (places if at % 2 else reversed(places)))
