"""Where the microseconds of an order go: `python -m bench.profile` (`make profile`) loads a gateway worker of a system
of its own, counts the instructions of the core, and writes what it finds into a folder.

It promises to say what it could not find, and why; then it exits with 1. Its figures are for whoever makes the gateway
faster; those of `floodgate bench` are for everybody.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from bench import environment, instructions, profile_tables, workload
from bench.failure import ScenarioError
from bench.system import open_system
from bench.threads import Place
from bench.worker import Worker
from deploy.local.failure import StackError

FOLDER = Path("profiles")
WARM_UP_S = 2
CORES = ("core", "core_full")
PTRACE = (
    "py-spy reads the memory of the worker (ptrace). It may when the worker runs under the same user and the kernel"
    " does not forbid it (kernel.yama.ptrace_scope = 0, or no Yama); else run this as root, in a container with"
    " --cap-add SYS_PTRACE."
)
PERF_MISSING = (
    "By library: not known ({why}). perf comes with linux-perf (Debian), linux-tools-generic (Ubuntu), perf (Fedora);"
    " kernel.perf_event_paranoid has to be 2 or less"
)


class Wanted(NamedTuple):
    """What to look at, and where to put it."""

    out: Path
    seconds: int
    connections: int
    core: bool


@click.command(epilog=PTRACE)
@click.option("--out", type=click.Path(path_type=Path), default=FOLDER, show_default=True, help="Where to put it all.")
@click.option("--seconds", type=click.IntRange(3, 600), default=10, show_default=True, help="Of each of three loads.")
@click.option("--connections", type=click.IntRange(1, 4096), default=64, show_default=True, help="Of wrk.")
@click.option("--core/--no-core", default=True, help="Whether to count the instructions of the core (a minute or two).")
def main(out: Path, seconds: int, connections: int, core: bool) -> None:  # noqa: FBT001 - click's way
    """Say where the microseconds of an order go: threads, libraries, a flame graph, instructions."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "profile.txt").open("w") as text:
        try:
            for part in _parts(Wanted(out, seconds, connections, core)):
                click.echo(f"{part}\n")
                text.write(f"{part}\n\n")
        except (ScenarioError, StackError) as error:
            text.write(f"{error}\n")
            raise click.ClickException(str(error)) from error
    click.echo(f"All of it is in {out}/.")


def _parts(wanted: Wanted) -> Iterator[str]:
    """What is found, one after the other. Raises ScenarioError or StackError."""
    machine = ", ".join(f"{name} {value}" for name, value in environment.machine().items())
    yield f"One gateway worker, wrk at {wanted.connections} connections, canonical orders, all features on\n{machine}"
    with tempfile.TemporaryDirectory(prefix="floodgate-profile-") as scratch:
        Path(scratch).chmod(0o711)  # Root's PostgreSQL runs under another name and has to pass.
        yield from _of_worker(wanted, Path(scratch))
    for name in CORES if wanted.core else ():
        yield profile_tables.by_function(instructions.count(name, wanted.out))


def _of_worker(wanted: Wanted, scratch: Path) -> Iterator[str]:
    """What a worker under load shows. The flame graph comes last: it may be refused."""
    with open_system(scratch / "data", 1) as system:
        system.ensure_goods([workload.goods(workload.SKU)])
        worker = Worker(system, scratch, wanted.seconds, wanted.connections)
        worker.alone(WARM_UP_S)
        alone = worker.alone()
        loaded, taken = worker.sampled() if shutil.which("perf") else (None, Counter[Place]())
        yield profile_tables.by_thread(alone, worker.pid, taken)
        if loaded is not None and taken:
            yield profile_tables.by_library(loaded, worker.pid, taken)
        else:
            yield PERF_MISSING.format(why="perf is not installed" if loaded is None else loaded.failure)
        picture = wanted.out / "worker.svg"
        flames = worker.drawn(picture)
        if flames.failure:
            raise ScenarioError(f"No flame graph: {flames.failure}\n{PTRACE}")
        yield profile_tables.of_flames(flames, alone, str(picture))


if __name__ == "__main__":
    main()
