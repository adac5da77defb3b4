"""The mutation run: the guards of the promise are taken away one after the other, and the matrix or the simulation has
to notice. It belongs to the tests, so it is there when this runs from the project's own folder, and nowhere else.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.failure import ScenarioError
from bench.faults.record import Mutation

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "mutations" / "__main__.py"
COMMAND = (sys.executable, "-m", "tests.mutations")
ABSENT = "Mutations: not run. They belong to the tests, which are in the project's folder and are not installed."


def is_here() -> bool:
    """Whether the project's tests lie beside this."""
    return PROGRAM.is_file()


def run_mutations(say: Callable[[str], None]) -> list[Mutation]:
    """Every guard, and what has noticed that it was gone. Raises ScenarioError when that cannot be said."""
    with tempfile.TemporaryDirectory(prefix="floodgate-mutations-") as folder:
        record = Path(folder) / "mutations.json"
        command = [*COMMAND, "--json", str(record)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    say(line.rstrip())
            except BaseException:
                process.terminate()
                raise
        if not record.exists():
            raise ScenarioError(f"the mutation run ended with {process.returncode}, and has left no record")
        return msgspec.json.decode(record.read_bytes(), type=list[Mutation])
