"""The charts of a report: bars, stacked bars, spans and curves, each from plain rows, as SVG.

A chart draws every run beside its median, and an axis of amounts starts at zero, so that no difference looks larger
than it is. What has no value is not drawn. Texts come from a record and are escaped here.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple, TypeVar

from deploy.pictures import drawing
from deploy.pictures.drawing import Size, label

WIDTH = 760
MARGIN = 20
PLOT_LEFT, PLOT_RIGHT = 214, 612  # the names stand left of it, the values right of it
ROW, BAR = 30, 16
HEAD = 62
LEGEND = 24
FOOT = 40
TICKS_MAX = 5
CURVE_HEIGHT = 200
LETTER = 6.6  # the mean width of a letter of 13 pixels

LIGHT = """
    .order { fill: #1a9c5b } .ceiling { fill: #a8b3c1 } .peer { fill: #8c6fc4 } .refusal { fill: #d1576b }
    .missed { fill: #e8a33d } .run { fill: #1f2328; fill-opacity: .55 } .target { stroke: #1f2328; stroke-width: 2 }
    .generator { fill: #a8b3c1 } .worker { fill: #1a9c5b } .postgres { fill: #4078c0 } .nats { fill: #e8a33d }
    .redis { fill: #d1576b } .others { fill: #8c6fc4 }
    .span { stroke: #8c959f; stroke-width: 3 } .middle-dot { fill: #1a9c5b } .late-dot { fill: #d1576b }
    .curve { fill: none; stroke-width: 2 } .c0 { stroke: #1a9c5b } .c1 { stroke: #4078c0 } .c2 { stroke: #e8a33d }
    .c3 { stroke: #d1576b } .d0 { fill: #1a9c5b } .d1 { fill: #4078c0 } .d2 { fill: #e8a33d } .d3 { fill: #d1576b }"""
DARK = """
      .order { fill: #3fb977 } .ceiling { fill: #566070 } .peer { fill: #9d83d1 } .refusal { fill: #d75f74 }
      .missed { fill: #d69a3a } .run { fill: #f0f6fc; fill-opacity: .6 } .target { stroke: #f0f6fc }
      .generator { fill: #566070 } .worker { fill: #3fb977 } .postgres { fill: #5b93dc } .nats { fill: #d69a3a }
      .redis { fill: #d75f74 } .others { fill: #9d83d1 }
      .span { stroke: #656c76 } .middle-dot { fill: #3fb977 } .late-dot { fill: #d75f74 }
      .c0 { stroke: #3fb977 } .c1 { stroke: #5b93dc } .c2 { stroke: #d69a3a } .c3 { stroke: #d75f74 }
      .d0 { fill: #3fb977 } .d1 { fill: #5b93dc } .d2 { fill: #d69a3a } .d3 { fill: #d75f74 }"""
STYLE = drawing.style(LIGHT, DARK)
CURVES = 4  # colours

Row = TypeVar("Row")


class Caption(NamedTuple):
    """What stands above a chart, and below its axis."""

    title: str
    about: str
    axis: str


class Bar(NamedTuple):
    """A median with its runs; `shown` is how the value reads, `kind` the class that colours it."""

    name: str
    value: float
    shown: str
    kind: str
    runs: Sequence[float] = ()
    target: float | None = None


class Stack(NamedTuple):
    """Parts that add up: (kind, value) from left to right; `shown` is how their sum reads."""

    name: str
    parts: Sequence[tuple[str, float]]
    shown: str


class Span(NamedTuple):
    """From the middle to the late: half of something lay below `middle`, 99 % below `late`."""

    name: str
    middle: float
    late: float
    shown: str


class Curve(NamedTuple):
    """For each place of the axis every run's value, of which the curve joins the medians."""

    name: str
    points: Sequence[tuple[float, Sequence[float]]]


class Scale(NamedTuple):
    """Amounts on a stretch of pixels, from zero; `most` is the last tick."""

    start: float
    end: float
    most: float
    step: float

    def at(self, value: float) -> float:
        return self.start + (self.end - self.start) * value / self.most

    def ticks(self) -> list[float]:
        return [self.step * number for number in range(round(self.most / self.step) + 1)]


def scale_of(most: float, start: float, end: float) -> Scale:
    """A scale that holds `most`, with round ticks."""
    rough = (most or 1) / TICKS_MAX
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    return Scale(start, end, step * math.ceil(round((most or 1) / step, 9)), step)


def bars(caption: Caption, rows: Sequence[Bar]) -> str:
    """Horizontal bars, a dot for each run, a tick where the target is."""
    most = max(max([row.value, *row.runs, row.target or 0]) for row in rows)
    scale = scale_of(most, PLOT_LEFT, PLOT_RIGHT)
    parts = [*_head(caption), *_ticks(scale, HEAD, len(rows), caption.axis)]
    for top, row in _rows(HEAD, rows):
        parts += _named(top, row.name, row.shown)
        parts.append(_bar(row.kind, scale.start, scale.at(row.value), top))
        parts += [f'<circle class="run" cx="{scale.at(run):.1f}" cy="{top + BAR / 2:g}" r="2.5"/>' for run in row.runs]
        if row.target is not None:
            parts.append(f'<path class="target" d="M{scale.at(row.target):.1f} {top - 4:g}v{BAR + 8}"/>')
    return _chart(caption, HEAD, rows, parts)


def stacks(caption: Caption, rows: Sequence[Stack]) -> str:
    """Horizontal bars of parts that add up, with a legend."""
    scale = scale_of(max(sum(value for _, value in row.parts) for row in rows), PLOT_LEFT, PLOT_RIGHT)
    kinds = list(dict.fromkeys(kind for row in rows for kind, _ in row.parts))
    parts = [*_head(caption), *_legend(kinds, kinds), *_ticks(scale, HEAD + LEGEND, len(rows), caption.axis)]
    for top, row in _rows(HEAD + LEGEND, rows):
        parts += _named(top, row.name, row.shown)
        sum_before = 0.0
        for kind, value in row.parts:
            parts.append(_bar(kind, scale.at(sum_before), scale.at(sum_before + value), top))
            sum_before += value
    return _chart(caption, HEAD + LEGEND, rows, parts)


def spans(caption: Caption, rows: Sequence[Span]) -> str:
    """A line from the middle to the late of each row; the axis is logarithmic, since both stand far apart."""
    decades = _decades([value for row in rows for value in (row.middle, row.late) if value > 0])
    parts = [*_head(caption), *_legend(["middle-dot", "late-dot"], ["half of the answers within", "99 % within"])]
    parts += _decade_ticks(decades, HEAD + LEGEND, len(rows), caption.axis)
    for top, row in _rows(HEAD + LEGEND, rows):
        ends = [_at_decade(decades, value) for value in (row.middle, row.late)]
        y = top + BAR / 2
        parts += _named(top, row.name, row.shown)
        parts.append(f'<path class="span" d="M{ends[0]:.1f} {y:g}H{ends[1]:.1f}"/>')
        kinds = ("middle-dot", "late-dot")
        parts += [
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:g}" r="5"/>' for kind, x in zip(kinds, ends, strict=True)
        ]
    return _chart(caption, HEAD + LEGEND, rows, parts)


def curves(caption: Caption, rows: Sequence[Curve], unit: str) -> str:
    """Curves over places that are named, not measured: each place of the x axis has the same width. Amounts go up, in
    `unit`; each run is a dot.
    """
    assert len(rows) <= CURVES
    names = sorted({x for row in rows for x, _ in row.points})
    top, left, right = HEAD + LEGEND + 30, 84, WIDTH - MARGIN - 16
    bottom = top + CURVE_HEIGHT
    scale = scale_of(max(run for row in rows for _, runs in row.points for run in runs), bottom, top)
    places = {x: left + (right - left) * (at + 0.5) / len(names) for at, x in enumerate(names)}
    parts = [*_head(caption), *_legend([f"d{at}" for at in range(len(rows))], [row.name for row in rows])]
    parts.append(label(MARGIN, top - 14, escape(unit), "strong"))
    for tick in scale.ticks():
        parts.append(f'<path class="{"grid" if tick else "axis"}" d="M{left} {scale.at(tick):.1f}H{right}"/>')
        parts.append(label(left - 8, scale.at(tick) + 4, f"{tick:,g}" if tick < 1e6 else f"{tick:,.0f}", "end"))
    parts += [label(x, bottom + 20, f"{name:,g}", "middle") for name, x in places.items()]
    for at, row in enumerate(rows):
        parts += _curve(at, row, places, scale)
    parts.append(label((left + right) / 2, bottom + 40, escape(caption.axis), "middle"))
    return drawing.picture(Size(WIDTH, int(bottom) + 54), STYLE, escape(caption.title), escape(caption.about), parts)


def _curve(at: int, row: Curve, places: dict[float, float], scale: Scale) -> Iterator[str]:
    joined = [(places[x], scale.at(_median(runs))) for x, runs in row.points]
    yield f'<path class="curve c{at}" d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in joined)}"/>'
    for x, runs in row.points:
        yield from (f'<circle class="d{at}" cx="{places[x]:.1f}" cy="{scale.at(run):.1f}" r="3"/>' for run in runs)


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def _chart(caption: Caption, head: int, rows: Sequence[object], parts: Sequence[str]) -> str:
    size = Size(WIDTH, head + ROW * len(rows) + FOOT)
    return drawing.picture(size, STYLE, escape(caption.title), escape(caption.about), parts)


def _head(caption: Caption) -> Iterator[str]:
    yield label(MARGIN, 28, escape(caption.title), "title")
    yield label(MARGIN, 48, escape(caption.about))


def _legend(kinds: Sequence[str], names: Sequence[str]) -> Iterator[str]:
    x = float(MARGIN)
    for kind, name in zip(kinds, names, strict=True):
        yield f'<rect class="{kind}" x="{x:g}" y="61" width="12" height="12" rx="2"/>'
        yield label(x + 18, 72, escape(name))
        x += 18 + LETTER * len(name) + 18


def _rows(head: int, rows: Sequence[Row]) -> Iterator[tuple[float, Row]]:
    """Each row with the top of its bar."""
    for number, row in enumerate(rows):
        yield head + ROW * number + (ROW - BAR) / 2, row


def _named(top: float, name: str, shown: str) -> Iterator[str]:
    yield label(PLOT_LEFT - 10, top + BAR - 3.5, escape(name), "end strong")
    yield label(PLOT_RIGHT + 12, top + BAR - 3.5, escape(shown))


def _bar(kind: str, start: float, end: float, top: float) -> str:
    return f'<rect class="{kind}" x="{start:.1f}" y="{top:g}" width="{max(end - start, 0):.1f}" height="{BAR}"/>'


def _ticks(scale: Scale, head: int, rows: int, axis: str) -> Iterator[str]:
    bottom = head + ROW * rows
    for tick in scale.ticks():
        x = scale.at(tick)
        yield f'<path class="{"grid" if tick else "axis"}" d="M{x:.1f} {head}V{bottom}"/>'
        yield label(x, bottom + 16, f"{tick:,g}" if tick < 1e6 else f"{tick:,.0f}", "middle")
    yield label((scale.start + scale.end) / 2, bottom + 33, escape(axis), "middle")


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _at_decade(decades: tuple[int, int], value: float) -> float:
    low, high = decades
    share = (math.log10(max(value, 10.0**low)) - low) / (high - low)
    return PLOT_LEFT + (PLOT_RIGHT - PLOT_LEFT) * share


def _decade_ticks(decades: tuple[int, int], head: int, rows: int, axis: str) -> Iterator[str]:
    bottom = head + ROW * rows
    for power in range(decades[0], decades[1] + 1):
        x = _at_decade(decades, 10.0**power)
        yield f'<path class="grid" d="M{x:.1f} {head}V{bottom}"/>'
        yield label(x, bottom + 16, f"{10.0**power:,g}", "middle")
    yield label((PLOT_LEFT + PLOT_RIGHT) / 2, bottom + 33, escape(axis), "middle")
