"""The report of `floodgate bench scale`: a page, charts and findings for documents, from its JSON and nothing else.

Every run is on the page. A part with faults shows them where its findings would stand.
"""

from collections.abc import Iterator
from html import escape

from bench.record import Run
from bench.report import charts, page, words
from bench.report.charts import Bar, Caption, Curve
from bench.report.words import number
from bench.scale.record import Part, ScaleRecord, Series

BARS = "bytes"  # a part in this unit has no axis to go along


def scale_svgs(record: ScaleRecord) -> dict[str, str]:
    """File name -> SVG."""
    return {file: svg for name, part in record.scale.items() for file, svg in _charts(name, part)}


def scale_html(record: ScaleRecord) -> str:
    """The whole page."""
    title = "Floodgate: what grows, and what it costs"
    missed = [[escape(name), escape(why)] for name, why in record.missed.items()]
    return page.document(
        title,
        [
            f"<h1>{title}</h1>\n<p class=quiet>{escape(record.environment.date)}</p>",
            page.about(record.environment, record.method),
            *(_section(name, part) for name, part in record.scale.items()),
            page.section("Not measured", page.rows(("part", "because"), missed) if missed else ""),
        ],
    )


def scale_table(record: ScaleRecord) -> str:
    """What was found, in Markdown."""
    parts = [f"{words.machine(record.environment)}; {record.environment.date}."]
    for part in record.scale.values():
        said = [f"* {finding}" for finding in conclusions(part)]
        parts += [f"**{part.title}**", "\n".join(said)]
    parts += [f"* `{name}` was not measured: {why}" for name, why in record.missed.items()]
    return "\n\n".join(parts)


def conclusions(part: Part) -> list[str]:
    """The findings, or why there are none."""
    return [f"No finding: {fault}." for fault in part.faults] or part.findings


def _section(name: str, part: Part) -> str:
    figures = [[escape(of), number(value)] for of, value in part.figures.items()]
    return page.section(
        part.title,
        page.claim(conclusions(part), sound=not part.faults),
        *(page.chart(svg) for _, svg in _charts(name, part)),
        page.listed(part.method),
        page.rows(("figure", ""), figures) if figures else "",
        page.rows(("", part.axis, "round", part.unit, "µs of the worker", "p50 / p99 ms", "books"), _runs(part)),
    )


def _runs(part: Part) -> Iterator[list[str]]:
    for one in part.series:
        for place in one.places:
            for run in place.runs:
                yield [escape(one.name), f"{place.at:,g}", *_run(run)]


def _run(run: Run) -> list[str]:
    worker = run.cpu_us_per_order.get("worker")
    late = [number(ms) for ms in (run.p50_ms, run.p99_ms) if ms is not None]
    said = "; ".join((words.books(run.verified), *run.faults)).strip("; ")
    return [
        str(run.round or ""),
        number(run.value),
        "" if worker is None else number(worker),
        " / ".join(late),
        escape(said),
    ]


def _charts(name: str, part: Part) -> Iterator[tuple[str, str]]:
    """File names and charts: of the rates, and of the worker's CPU where it is known."""
    if part.unit == BARS:
        yield f"scale-{name}.svg", charts.bars(Caption(part.title, "each dot is a run", part.axis), _bars(part))
        return
    about = "the curve joins the medians, each dot is a run"
    yield f"scale-{name}.svg", charts.curves(Caption(part.title, about, part.axis), _curves(part), part.unit)
    if _has_cpu(part):
        caption = Caption(f"{part.title}: CPU time of the worker", about, part.axis)
        yield f"scale-{name}-cpu.svg", charts.curves(caption, _cpu_curves(part), "microseconds")


def _bars(part: Part) -> list[Bar]:
    medians = [(one, one.places[0].median) for one in part.series]
    return [Bar(one.name, value, number(value), "order", one.places[0].values) for one, value in medians]


def _curves(part: Part) -> list[Curve]:
    return [Curve(one.name, [(place.at, place.values) for place in one.places]) for one in part.series]


def _has_cpu(part: Part) -> bool:
    return all("worker" in run.cpu_us_per_order for one in part.series for place in one.places for run in place.runs)


def _cpu_curves(part: Part) -> list[Curve]:
    return [Curve(one.name, _cpu_of(one)) for one in part.series]


def _cpu_of(series: Series) -> list[tuple[float, list[float]]]:
    return [(place.at, [run.cpu_us_per_order["worker"] for run in place.runs]) for place in series.places]
