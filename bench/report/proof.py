"""What `floodgate faults`, the simulation and the fuzzing have found when they ran last, as tables for documents.

What the tables say is what the records hold; a failure stands in them like everything else, and a record that is not
there is said to be missing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from bench.faults.record import Matrix, RowResult, Soak, Verdict
from bench.record import Record
from bench.report import charts, words
from bench.report.charts import Bar, Caption
from bench.report.table import markdown
from bench.report.words import number

COUNTS = ("lost", "oversold", "stranded", "doubled", "hung")
KILLED_POSTGRES = 8  # the row in which PostgreSQL is killed, and away
SLOW = "slow"  # the scenario of the benchmark
NAME_MAX = 29  # letters that fit beside a bar
ROW_HEADS = ("", "fault", "how", "times", "acknowledged", "receipts", " / ".join(COUNTS), "s")
FUZZ_HEADS = ("inputs into", "by", "inputs", "taken", "refused", "500", "crashes", "MiB, warm and in the end")

Shape = TypeVar("Shape")


class Soaked(msgspec.Struct):
    """What `floodgate faults --soak --json` writes, as far as it is of the soak."""

    soak: Soak


class Meeting(msgspec.Struct):
    """How often a fault, or what befalls a whole process or server, has met a step of the road."""

    what: str
    where: str
    met: int


class Simulated(msgspec.Struct):
    """What `python -m tests.simulation --json` writes."""

    environment: dict[str, str]
    worlds: int
    steps: int
    faults: int
    virtual_s: int
    wall_s: int
    cpu_s: int
    failures: list[dict[str, str | int]]
    coverage: list[Meeting]


class Piece(msgspec.Struct):
    """One engine's inputs into one target."""

    target: str
    engine: str
    status: str
    reason: str
    inputs: int
    accepted: int
    refused: int
    errors_500: int
    crashes: int
    rss_warm_mib: float
    rss_end_mib: float
    seconds: float


class Fuzzed(msgspec.Struct):
    """What `python -m tests.fuzz --json` writes."""

    environment: dict[str, str]
    seed: int
    pieces: list[Piece]


class Records(NamedTuple):
    """The files. One that is not there has not been made yet."""

    matrix: Path
    soak: Path
    simulated: Path
    fuzzed: Path
    bench: Path


def summary(files: Records) -> str:
    """A line for each proof: what was done, and what came of it."""
    lines = [
        *_lines("`floodgate faults`", files.matrix, Matrix, _of_matrix),
        *_lines("`floodgate faults --soak`", files.soak, Soaked, _of_soak),
        *_lines("`make simulate`", files.simulated, Simulated, _of_worlds),
        *_lines("`make fuzz`", files.fuzzed, Fuzzed, _of_inputs),
        *_lines(f"`floodgate bench {SLOW}`", files.bench, Record, _of_slow),
    ]
    return markdown(("proof", "what was done", "what came of it"), lines)


def matrix_table(file: Path) -> str:
    """Every row of the matrix."""
    matrix = _read(file, Matrix)
    if matrix is None:
        return _missing(file)
    about = f"{_where(matrix.environment)}; seed {matrix.seed}."
    return f"{about}\n\n{markdown(ROW_HEADS, [_row(row) for row in matrix.rows])}"


def guards_table(file: Path) -> str:
    """Every guard that was taken away, and who has noticed."""
    matrix = _read(file, Matrix)
    if matrix is None:
        return _missing(file)
    noticed: defaultdict[str, list[str]] = defaultdict(list)
    for one in matrix.mutations:
        noticed[one.guard].append(one.caught_by or "**nobody**")
    return markdown(("guard", "who missed it"), [(guard, "; ".join(who)) for guard, who in noticed.items()])


def worlds_table(file: Path) -> str:
    """Each step of the road, and how often what has met it."""
    found = _read(file, Simulated)
    if found is None:
        return _missing(file)
    steps: defaultdict[str, list[Meeting]] = defaultdict(list)
    for one in found.coverage:
        steps[one.where].append(one)
    lines = [(f"`{step}`", _meetings(met)) for step, met in sorted(steps.items())]
    return f"{_where(found.environment)}.\n\n{markdown(('step', 'what has met it, how often'), lines)}"


def inputs_table(file: Path) -> str:
    """Each target with each engine."""
    found = _read(file, Fuzzed)
    if found is None:
        return _missing(file)
    lines = [_piece(piece) for piece in found.pieces]
    return f"{_where(found.environment)}; seed {found.seed}.\n\n{markdown(FUZZ_HEADS, lines)}"


def recovery_svg(file: Path) -> str:
    """How long after each fault orders flowed again."""
    matrix = msgspec.json.decode(file.read_bytes(), type=Matrix)
    rows = [row for row in matrix.rows if row.recover_s is not None]
    caption = Caption(
        "How soon orders flow again",
        f"The longest of {min(row.injections for row in rows)} times each, from the end of the fault",
        "seconds until the next order was acknowledged",
    )
    return charts.bars(caption, [_bar(row) for row in rows])


def _bar(row: RowResult) -> Bar:
    seconds, name = row.recover_s or 0.0, f"{row.row} {row.name}"
    shown = name if len(name) <= NAME_MAX else f"{name[: NAME_MAX - 1].rstrip()}…"
    return Bar(shown, seconds, f"{seconds:.2f} s", "order" if row.status == "passed" else "missed")


def _lines(
    name: str, file: Path, shape: type[Shape], said_of: Callable[[Shape], Iterable[tuple[str, str]]]
) -> Iterable[Sequence[str]]:
    """What was done and what came of it, the first line under the name of the proof."""
    record = _read(file, shape)
    if record is None:
        yield name, "", _missing(file)
        return
    for done, came in said_of(record):
        yield name, done, came
        name = ""


def _of_matrix(matrix: Matrix) -> Iterable[tuple[str, str]]:
    ran = [row for row in matrix.rows if row.status != "not_run"]
    total = {count: sum(getattr(row, count) for row in ran) for count in COUNTS}
    injections, orders = sum(row.injections for row in ran), sum(row.acknowledged for row in ran)
    failed = [f"row {row.row} failed" for row in ran if row.status == "failed"]
    each = min(row.injections for row in ran)
    done = f"{len(ran)} faults, each at least {each} times: {injections:,} in all, {orders:,} orders acknowledged"
    yield done, ", ".join([*(f"{count} {value}" for count, value in total.items()), *failed])
    killed = next((row for row in ran if row.row == KILLED_POSTGRES), None)
    if killed is not None and killed.silent_s is not None:
        done = f"PostgreSQL killed {killed.injections} times under load, and away for {matrix.times['outage']:g} s"
        yield done, f"never without an acknowledged order for longer than {killed.silent_s:.2f} s"
    if matrix.mutations:
        missed = [one.guard for one in matrix.mutations if one.caught_by is None]
        came = f"not noticed: {', '.join(missed)}" if missed else "each time something failed, as it has to"
        yield f"guards taken away {len(matrix.mutations)} times, one at a time", came


def _of_soak(record: Soaked) -> Iterable[tuple[str, str]]:
    soak = record.soak
    done = f"{soak.seconds:,} s of steady load, {soak.faults} deaths, {soak.requests:,} orders"
    share = f"{soak.right_within_1_s:.3%} of the requests answered right within 1 s, retries not counted"
    yield done, f"{share}; {_counted(soak.verdict)}"


def _of_worlds(found: Simulated) -> Iterable[tuple[str, str]]:
    rarest = min(found.coverage, key=lambda one: one.met)
    done = f"{found.worlds:,} worlds in {found.wall_s / 3600:.1f} h: {found.steps:,} steps, {found.faults:,} faults"
    met = f"the rarest meeting of a fault with a step came {rarest.met:,} times"
    yield done, f"{len(found.failures)} failed; {met}"


def _of_inputs(found: Fuzzed) -> Iterable[tuple[str, str]]:
    ran = [piece for piece in found.pieces if piece.status != "not_run"]
    targets = ", ".join(dict.fromkeys(piece.target for piece in ran))
    errors, crashes = sum(piece.errors_500 for piece in ran), sum(piece.crashes for piece in ran)
    growth = max(piece.rss_end_mib - piece.rss_warm_mib for piece in ran)
    wrong = [piece.target for piece in ran if piece.status == "failed"]
    came = f"{errors} answered 500, {crashes} crashes, memory grew by {growth:.1f} MiB at most"
    done = f"{sum(piece.inputs for piece in ran):,} inputs that nobody should send: {targets}"
    yield done, f"{came}; failed: {', '.join(wrong)}" if wrong else came


def _of_slow(record: Record) -> Iterable[tuple[str, str]]:
    slow = record.scenarios[SLOW]
    came = f"good orders wait {slow.median:.2f} times as long (p99; {number(slow.min)} to {number(slow.max)})"
    yield "200 POSTs that never end, beside 1,000 good orders a second", came


def _row(row: RowResult) -> Sequence[str]:
    if row.status == "not_run":
        return (str(row.row), row.name, row.how, "not run", "", "", row.reason or "", "")
    counts = " / ".join(str(getattr(row, count)) for count in COUNTS)
    if row.status == "failed":
        counts += f" **failed**: {'; '.join(row.found)}"
    recovered = "" if row.recover_s is None else f"{row.recover_s:.2f}"
    figures = (str(row.injections), f"{row.acknowledged:,}", f"{row.receipts:,}" if row.receipts else "")
    return (str(row.row), row.name, row.how, *figures, counts, recovered)


def _piece(piece: Piece) -> Sequence[str]:
    if piece.status == "not_run":
        return (piece.target, piece.engine, "not run", "", "", "", "", piece.reason)
    counts = (piece.inputs, piece.accepted, piece.refused, piece.errors_500, piece.crashes)
    memory = f"{piece.rss_warm_mib:.1f} / {piece.rss_end_mib:.1f}"
    return (piece.target, piece.engine, *(f"{count:,}" for count in counts), memory)


def _meetings(met: Iterable[Meeting]) -> str:
    return ", ".join(f"{one.what} {one.met:,}" for one in sorted(met, key=lambda one: one.what))


def _counted(verdict: Verdict) -> str:
    return ", ".join(f"{count} {getattr(verdict, count)}" for count in COUNTS)


def _where(environment: dict[str, str]) -> str:
    """On which machine, when, and of which revision."""
    revision = f", {environment['commit']}" if "commit" in environment else ""
    return f"{words.described(environment)}; {environment['date']}{revision}"


def _missing(file: Path) -> str:
    return f"not measured: there is no {file.name}"


def _read(file: Path, shape: type[Shape]) -> Shape | None:
    return msgspec.json.decode(file.read_bytes(), type=shape) if file.exists() else None
