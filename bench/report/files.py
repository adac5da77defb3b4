"""Records in files, of `floodgate bench`, `floodgate bench scale` and `floodgate faults` alike, and what is made of
them.
"""

from pathlib import Path

import msgspec

from bench.record import Record
from bench.report import proof, table
from bench.report.figures import render_svgs
from bench.report.page import render_html
from bench.report.scale import scale_html, scale_svgs, scale_table
from bench.report.table import render_table
from bench.scale.record import ScaleRecord


def is_of_faults(file: Path) -> bool:
    """Whether it is a record of the fault matrix."""
    return "rows" in msgspec.json.decode(file.read_bytes(), type=dict[str, msgspec.Raw])


def read(raw: bytes) -> Record | ScaleRecord:
    """A record of either benchmark. Raises msgspec.ValidationError for anything else."""
    if "scale" in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]):
        return msgspec.json.decode(raw, type=ScaleRecord)
    return msgspec.json.decode(raw, type=Record)


def html(file: Path) -> str:
    """The page."""
    record = read(file.read_bytes())
    return scale_html(record) if isinstance(record, ScaleRecord) else render_html(record)


def svgs(file: Path) -> dict[str, str]:
    """The charts by the names of their files."""
    if is_of_faults(file):
        return {"faults.svg": proof.recovery_svg(file)}
    record = read(file.read_bytes())
    return scale_svgs(record) if isinstance(record, ScaleRecord) else render_svgs(record)


def summary(file: Path) -> str:
    """What a record of `floodgate bench` comes to, in two sentences."""
    return table.summary(msgspec.json.decode(file.read_bytes(), type=Record))


def markdown(file: Path) -> str:
    """The tables."""
    if is_of_faults(file):
        return proof.matrix_table(file)
    record = read(file.read_bytes())
    return scale_table(record) if isinstance(record, ScaleRecord) else render_table(record)
