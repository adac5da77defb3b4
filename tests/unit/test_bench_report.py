"""The report shows what its record holds, hides nothing of it, and never makes an order of a refusal."""

import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from bench.record import Record, Target
from bench.report import charts, render_html, render_svgs, render_table, words
from bench.report.__main__ import main
from bench.report.charts import Bar, Caption, Curve, Span, Stack
from bench.report.files import markdown, read, svgs
from bench.report.scale import scale_html, scale_svgs, scale_table
from bench.report.table import summary
from bench.scale.record import ScaleRecord
from deploy.pictures.sale import PICTURE
from tests import bench_records

SVG = "{http://www.w3.org/2000/svg}"
CAPTION = Caption("Title & more", "about <this>", "axis")


class Page(HTMLParser):
    """What a page loads, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [str(value) for name, value in attrs if name in {"src", "href", "action"}]
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "title"} & set(self.open):
            self.text += f" {data.strip()}"


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter(f"{SVG}text")]


def shapes(svg: str, kind: str) -> list[ET.Element]:
    return [node for node in ET.fromstring(svg).iter() if kind in node.get("class", "").split()]


@pytest.fixture
def record() -> Record:
    return bench_records.record()


@pytest.fixture
def scale() -> ScaleRecord:
    return bench_records.scale()


@pytest.mark.parametrize("render", [render_html, render_table, lambda record: json.dumps(render_svgs(record))])
def test_report_of_the_same_record_is_the_same_bytes(render: Any) -> None:
    assert render(bench_records.record()) == render(bench_records.record())


def test_page_loads_nothing(record: Record) -> None:
    html = render_html(record)
    assert Page(html).loads == []
    assert not re.search(r"@import|url\(|<script|<link|<iframe", html)


def test_page_says_first_what_was_reached_then_where_and_how_then_the_figures(record: Record) -> None:
    text = Page(render_html(record)).text
    said = ["13,000 orders/s, durable", "Imaginary <CPU>", record.method[0], "Orders per second", "Every run"]
    places = [text.index(part) for part in said]
    assert places == sorted(places)


def test_report_says_what_the_machine_did_before(record: Record) -> None:
    assert "load before 7.5" in Page(render_html(record)).text
    assert "; load before 7.5;" in render_table(record)


def test_page_of_a_record_with_faults_has_no_headline_and_says_why() -> None:
    text = Page(render_html(bench_records.record(lost=3))).text
    assert "No headline: a run of accept@1: 3 acknowledged orders are not in the ledger." in text
    assert "orders/s, durable" not in text


def test_page_shows_every_run(record: Record) -> None:
    text = Page(render_html(record)).text
    values = [words.number(run.value) for found in record.scenarios.values() for run in found.runs]
    assert [value for value in values if value not in text] == []
    assert text.count("1,000 answered, 1,000 in the ledger, 1,000 events; 0 lost") == len(values)


def test_page_shows_the_faults_of_a_run_beside_it() -> None:
    record = bench_records.record()
    run = bench_records.run(7.0, faults=["the generator fell <behind>"])
    found = msgspec.structs.replace(record.scenarios["accept@1"], runs=[run])
    text = Page(render_html(msgspec.structs.replace(record, scenarios={"accept@1": found}))).text
    assert "the generator fell <behind>" in text


def test_cell_with_a_run_that_is_void_has_no_figure_and_its_runs_are_shown(record: Record) -> None:
    replace, run = msgspec.structs.replace, bench_records.run(8765.0)
    void = replace(bench_records.cell("overload", [8765.0]), runs=[replace(run, void="the generator fell behind")])
    made = replace(record, scenarios={**record.scenarios, "overload": void})
    assert "8,765" not in render_table(made)
    assert all("8,765" not in svg for svg in render_svgs(made).values())
    assert "the generator fell behind" in render_html(made)


def test_page_names_what_was_not_measured_and_which_target_was_missed(record: Record) -> None:
    text = Page(render_html(record)).text
    assert "bulk@1 wrk is not installed" in text
    assert "accept/echo@1 ≥ 0.50 0.29 0.28 to 0.31 not met" in text
    assert "soldout/echo@1 ≥ 1.00 1.16 1.15 to 1.18 met" in text


def test_refusals_have_a_chart_of_their_own_and_stand_in_none_of_orders(record: Record) -> None:
    drawn = render_svgs(record)
    assert "soldout, 1 worker × 256" in texts(drawn["bench-refusals.svg"])
    assert not any("soldout" in text or "echo" in text for text in texts(drawn["bench-orders.svg"]))
    assert {"accept, 1 worker × 256", "naive"} <= set(texts(drawn["bench-orders.svg"]))


def test_refusals_are_never_orders_in_the_table(record: Record) -> None:
    (line,) = [line for line in render_table(record).splitlines() if line.startswith("| soldout")]
    assert "52,001 refusals/s" in line
    assert "orders" not in line


def test_charts_are_well_formed_named_and_of_the_record(record: Record) -> None:
    drawn = render_svgs(record)
    assert set(drawn) == {
        f"bench-{name}.svg" for name in ("targets", "orders", "ceilings", "refusals", "cpu", "latency")
    }
    assert all(ET.fromstring(svg).findtext(f"{SVG}title") for svg in drawn.values())
    assert len(shapes(drawn["bench-orders.svg"], "run")) == 6  # of accept and of naive


def test_chart_of_targets_colours_what_was_missed(record: Record) -> None:
    (missed,) = shapes(render_svgs(record)["bench-targets.svg"], "missed")
    (met,) = shapes(render_svgs(record)["bench-targets.svg"], "order")
    (line, _) = shapes(render_svgs(record)["bench-targets.svg"], "target")
    at = float(line.get("d", "")[1:].split()[0])
    ends = [float(bar.get("x", "")) + float(bar.get("width", "")) for bar in (missed, met)]
    assert ends[0] < at < ends[1]


def test_chart_of_targets_turns_an_upper_bound_round(record: Record) -> None:
    targets = [Target(of="accept@1", at_most=26_000.0, measured=13_000.0, met=True)]
    svg = render_svgs(msgspec.structs.replace(record, targets=targets))["bench-targets.svg"]
    assert "13,000 of ≤ 26,000" in texts(svg)
    (bar,), (line,) = shapes(svg, "order"), shapes(svg, "target")
    zero = float(bar.get("x", ""))
    target = float(line.get("d", "")[1:].split()[0])
    assert float(bar.get("width", "")) == pytest.approx(2 * (target - zero), abs=0.2)


def test_chart_for_which_there_is_nothing_is_left_out(record: Record) -> None:
    only = msgspec.structs.replace(
        record, scenarios={"soldout@1": record.scenarios["soldout@1"]}, targets=[], ratios={}
    )
    assert set(render_svgs(only)) == {"bench-refusals.svg", "bench-cpu.svg", "bench-latency.svg"}
    assert "Orders per second" not in Page(render_html(only)).text


def test_record_in_which_nothing_was_measured_can_be_rendered(record: Record) -> None:
    empty = msgspec.structs.replace(record, scenarios={}, targets=[], ratios={}, headline=None)
    assert render_svgs(empty) == {}
    assert "No headline: nothing that carries one was measured." in Page(render_html(empty)).text
    assert "No headline" in render_table(empty)


def test_summary_says_whose_cpu_time_an_order_of_the_headline_takes(record: Record) -> None:
    parts = "worker 41.0, postgres 16.2, nats 13.0, generator 9.50, redis 0.40, others 0.20"
    said = f"Such an order takes {words.number(sum(bench_records.CPU.values()))} µs of CPU: {parts}."
    assert render_table(record).split("\n\n")[:2] == summary(record).split("\n\n")
    assert summary(record).split("\n\n")[1:] == [said]
    assert summary(bench_records.record(lost=3)).startswith("**No headline")


def test_table_renders_every_cell_and_target(record: Record) -> None:
    lines = render_table(record).splitlines()
    assert "| accept, 1 worker × 256 | 13,000 orders/s | 12,345 to 14,321 | 9.50 / 21.2 | 41.0 µs |" in lines
    assert "| `accept/echo@1` | ≥ 0.50 | 0.29 | not met |" in lines
    assert "* `bulk@1` was not measured: wrk is not installed" in lines
    assert (
        lines[0]
        == "**13,000 orders/s, durable and each with its event**, at 1 worker and 256 connections: 0.29 times echo."
    )


def test_names_from_the_record_are_escaped_in_charts() -> None:
    svg = charts.bars(CAPTION, [Bar("<a> & b", 1.0, "<1>", "order")])
    assert {"Title & more", "about <this>", "<a> & b", "<1>"} <= set(texts(svg))


def test_bars_are_as_long_as_their_values() -> None:
    svg = charts.bars(CAPTION, [Bar("a", 10.0, "10", "order"), Bar("b", 5.0, "5", "order")])
    long, short = (float(bar.get("width", "")) for bar in shapes(svg, "order"))
    assert long == pytest.approx(2 * short, abs=0.2)


def test_stacks_stand_end_to_end() -> None:
    svg = charts.stacks(CAPTION, [Stack("a", [("worker", 30.0), ("nats", 10.0)], "40")])
    _, worker = shapes(svg, "worker")  # after its mark in the legend
    _, nats = shapes(svg, "nats")
    end = float(worker.get("x", "")) + float(worker.get("width", ""))
    assert float(nats.get("x", "")) == pytest.approx(end, abs=0.2)
    assert float(worker.get("width", "")) == pytest.approx(3 * float(nats.get("width", "")), abs=0.4)


def test_spans_stand_on_a_logarithmic_axis() -> None:
    svg = charts.spans(CAPTION, [Span("a", 1.0, 100.0, ""), Span("b", 10.0, 100.0, "")])
    first, second = (float(dot.get("cx", "")) for dot in shapes(svg, "middle-dot") if dot.get("cx"))
    late = float(next(dot.get("cx", "") for dot in shapes(svg, "late-dot") if dot.get("cx")))
    assert late - second == pytest.approx(second - first, abs=0.2)


def test_curves_join_medians_and_show_every_run() -> None:
    svg = charts.curves(CAPTION, [Curve("a", [(1, [10.0, 30.0, 20.0]), (100_000, [40.0])])], "orders/s")
    dots = {float(dot.get("cy", "")) for dot in shapes(svg, "d0") if dot.get("cy")}
    (line,) = shapes(svg, "curve")
    joined = [float(point.split()[1]) for point in line.get("d", "")[1:].split("L")]
    assert len(dots) == 4
    assert joined[0] == sorted(dots)[2]  # the middle one of 10, 20, 30; y goes down
    assert {"1", "100,000", "orders/s", "axis"} <= set(texts(svg))


@pytest.mark.parametrize(("most", "last", "step"), [(9.0, 10.0, 2.0), (45_000.0, 50_000.0, 10_000.0), (1.0, 1.0, 0.2)])
def test_scale_ends_at_a_round_tick_above_every_value(most: float, last: float, step: float) -> None:
    scale = charts.scale_of(most, 0.0, 100.0)
    assert [scale.most, scale.step] == pytest.approx([last, step])
    assert scale.ticks()[-1] == pytest.approx(last)
    assert scale.at(0.0) == 0.0


@pytest.mark.parametrize(
    ("value", "shown"), [(12_345.6, "12,346"), (81.44, "81.4"), (0.4712, "0.47"), (0.0, "0"), (1.0, "1.00")]
)
def test_numbers_have_the_digits_that_they_are_worth(value: float, shown: str) -> None:
    assert words.number(value) == shown


def test_roles_beyond_the_known_ones_are_one_part_of_the_stack() -> None:
    cpu = {"nats": 1.0, "steward": 2.0, "projector": 3.0, "generator": 4.0}
    assert list(words.roles(cpu).items()) == [("generator", 4.0), ("nats", 1.0), ("others", 5.0)]


def test_scale_page_shows_findings_method_and_every_run(scale: ScaleRecord) -> None:
    page = Page(scale_html(scale))
    assert page.loads == []
    said = ["It is dearer by a third.", "How it was done.", "12,000", "12,240", "9,000", "9,180", "orders no disk"]
    assert [part for part in said if part not in page.text] == []


def test_scale_part_with_faults_has_no_finding() -> None:
    found = bench_records.scale(faults=["1 orders are doubled"])
    assert "No finding: 1 orders are doubled." in Page(scale_html(found)).text
    assert "* No finding: 1 orders are doubled." in scale_table(found)


def test_scale_has_a_chart_of_the_rates_and_one_of_the_worker(scale: ScaleRecord) -> None:
    drawn = scale_svgs(scale)
    assert set(drawn) == {"scale-skus.svg", "scale-skus-cpu.svg"}
    assert "100,000" in texts(drawn["scale-skus.svg"])
    assert len([dot for dot in shapes(drawn["scale-skus.svg"], "d0") if dot.get("cx")]) == 4


@pytest.mark.parametrize("made", [bench_records.record(), bench_records.scale()], ids=["bench", "scale"])
def test_record_of_either_command_is_read_back(made: Record | ScaleRecord) -> None:
    assert read(msgspec.json.encode(made)) == made


@pytest.mark.parametrize("made", [bench_records.record(), bench_records.scale()], ids=["bench", "scale"])
def test_command_writes_page_and_charts(made: Record | ScaleRecord, tmp_path: Path) -> None:
    source, page, folder = tmp_path / "r.json", tmp_path / "r.html", tmp_path / "charts"
    source.write_bytes(msgspec.json.encode(made))
    done = CliRunner().invoke(main, [str(source), "--html", str(page), "--svg", str(folder)])
    assert done.exit_code == 0, done.output
    assert page.read_text().startswith("<!doctype html>")
    assert {file.suffix for file in folder.iterdir()} == {".svg"}


def test_command_without_a_target_prints_the_table(record: Record, tmp_path: Path) -> None:
    source = tmp_path / "r.json"
    source.write_bytes(msgspec.json.encode(record))
    assert CliRunner().invoke(main, [str(source)]).output == f"{render_table(record)}\n" == f"{markdown(source)}\n"


def test_picture_of_the_sale_has_the_letters_of_the_charts() -> None:
    sale, chart = (
        ET.fromstring(svg) for svg in (PICTURE.read_text(), charts.bars(CAPTION, [Bar("a", 1, "1", "order")]))
    )
    rules = [str(root.findtext(f"{SVG}style")).split("}")[0] for root in (sale, chart)]
    assert rules[0] == rules[1]


@pytest.mark.parametrize("record", sorted(PICTURE.parent.glob("bench*.json")), ids=lambda path: path.name)
def test_charts_that_are_published_are_what_their_record_gives(record: Path) -> None:
    published = {name: (record.parent / name).read_text() for name in svgs(record)}
    assert published == svgs(record), f"run: python -m bench.report {record.name} --svg {record.parent}"
