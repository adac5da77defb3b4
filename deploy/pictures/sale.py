"""The picture of a sale: `python -m deploy.pictures.sale` draws sale.svg from sale.json, the record of one real run
that `python -m bench.sale` writes.

Every number in the picture comes from the record, and the same record gives the same bytes. The colours follow the
reader's light or dark mode; the ground is its own, so that it can be read on any page.
"""

import json
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from deploy.pictures import drawing
from deploy.pictures.drawing import Panel, Size, label

RECORD = Path(__file__).with_name("sale.json")
PICTURE = Path(__file__).with_name("sale.svg")
FROM_MS, TO_MS, TICK_MS = -3000, 3000, 500
WIDTH, HEIGHT = 960, 520
LEFT, RIGHT = 66, 936


class Band(NamedTuple):
    """Answers that are drawn and counted together."""

    name: str
    codes: tuple[str, ...]
    text: str
    legend_x: int


BANDS = (
    Band("early", ("sale_not_open",), "sale_not_open", 24),
    Band("order", ("accepted",), "201, an order", 214),
    Band("again", ("stock_returning", "ledger_away", "overloaded", "no_answer"), "503, told to ask again", 380),
    Band("sold", ("sold_out",), "sold_out", 590),
)
STYLE = drawing.style(
    """
    .opening { stroke: #1f2328; stroke-dasharray: 4 3 }
    .early { fill: #a8b3c1 } .order { fill: #1a9c5b } .again { fill: #e8a33d } .sold { fill: #d1576b }
    .left { fill: #1a9c5b; fill-opacity: .14 } .line { fill: none; stroke: #1a9c5b; stroke-width: 2 }""",
    """
      .opening { stroke: #f0f6fc }
      .early { fill: #566070 } .order { fill: #3fb977 } .again { fill: #d69a3a } .sold { fill: #d75f74 }
      .left { fill: #3fb977 } .line { stroke: #3fb977 }""",
)


def render(record: dict[str, Any]) -> str:
    """The picture as SVG."""
    answers = Panel(150, 330, 600, 200, f"answers per {record['bin_ms']} ms")
    stock = Panel(376, 466, record["sale"]["units"], record["sale"]["units"] // 2, "units left")
    parts = [*_head(record), *_frame(answers), *_bars(record, answers), *_frame(stock), *_left(record, stock)]
    parts += [*_times(stock), *_marks(record, answers, stock)]
    return drawing.picture(Size(WIDTH, HEIGHT), STYLE, record["title"], _description(record), parts)


def _counts(record: dict[str, Any]) -> dict[str, int]:
    answers = record["summary"]["answers"]
    return {band.name: sum(answers.get(code, 0) for code in band.codes) for band in BANDS}


def _description(record: dict[str, Any]) -> str:
    sale, counts = record["sale"], _counts(record)
    heard = ", ".join(f"{counts[band.name]:,} times {band.text}" for band in BANDS)
    return f"{sale['buyers']:,} buyers and {sale['units']:,} units: {heard}."


def _head(record: dict[str, Any]) -> Iterator[str]:
    sale, machine, counts = record["sale"], record["machine"], _counts(record)
    yield label(24, 36, record["title"], "title")
    about = f"{machine['processor']}, {machine['cores']} cores, everything on this one machine, the crowd included"
    yield label(24, 60, f"{sale['buyers']:,} buyers, {sale['units']:,} units · {about} · {record['date']}")
    for band in BANDS:
        yield f'<rect class="{band.name}" x="{band.legend_x}" y="79" width="12" height="12" rx="2"/>'
        count = f'<tspan class="strong">{counts[band.name]:,}</tspan>'
        yield label(band.legend_x + 18, 90, f"{count} × {band.text}")


def _frame(panel: Panel) -> Iterator[str]:
    yield label(LEFT, panel.top - 12, panel.title, "strong")
    for value in range(0, panel.most + 1, panel.step):
        y = panel.y(value)
        yield f'<path class="{"grid" if value else "axis"}" d="M{LEFT} {y:g}H{RIGHT}"/>'
        yield label(LEFT - 8, y + 4, f"{value:,}", "end")


def _bars(record: dict[str, Any], panel: Panel) -> Iterator[str]:
    """One path per band; the bands of a moment stand on each other."""
    bin_ms, first = record["bin_ms"], record["first_bin_ms"]
    heights = [0] * len(record["pressed"])
    width = _x(bin_ms) - _x(0) - 1
    for band in BANDS:
        drawn = ""
        for place, at_ms in enumerate(range(first, first + bin_ms * len(heights), bin_ms)):
            count = sum(record["answers"].get(code, heights)[place] for code in band.codes if code in record["answers"])
            if count and FROM_MS <= at_ms < TO_MS:
                low, high = panel.y(heights[place]), panel.y(heights[place] + count)
                drawn += f"M{_x(at_ms) + 0.5:.1f} {low:.1f}V{high:.1f}h{width:.1f}V{low:.1f}z"
            heights[place] += count
        yield f'<path class="{band.name}" d="{drawn}"/>'


def _left(record: dict[str, Any], panel: Panel) -> Iterator[str]:
    """Units less the orders that buyers have been told of."""
    bin_ms, first, units = record["bin_ms"], record["first_bin_ms"], record["sale"]["units"]
    sold = accumulate(record["answers"]["accepted"])
    ends = ((first + bin_ms * (place + 1), units - count) for place, count in enumerate(sold))
    line = f"M{LEFT} {panel.y(units):.1f}"
    line += "".join(f"H{_x(at):.1f}V{panel.y(left):.1f}" for at, left in ends if FROM_MS < at <= TO_MS)
    yield f'<path class="left" d="{line}H{RIGHT}V{panel.bottom:g}H{LEFT}z"/>'
    yield f'<path class="line" d="{line}H{RIGHT}"/>'


def _times(panel: Panel) -> Iterator[str]:
    for at_ms in range(FROM_MS, TO_MS + 1, TICK_MS):
        yield label(_x(at_ms), panel.bottom + 20, f"{at_ms / 1000:g}".replace("-", "−"), "middle")
    yield label((LEFT + RIGHT) / 2, panel.bottom + 40, "seconds from the opening, by PostgreSQL's clock", "middle")


def _marks(record: dict[str, Any], answers: Panel, stock: Panel) -> Iterator[str]:
    summary = record["summary"]
    opening, sold_out = _x(0), _x(summary["first_sold_out_ms"])
    yield f'<path class="opening" d="M{opening:g} {answers.top - 26:g}V{stock.bottom:g}"/>'
    yield label(
        opening - 8, answers.top + 22, f"the sale opens: first order after {summary['first_order_ms']:.0f} ms", "end"
    )
    half, most = summary["accepted_wait_ms"]["p50"], summary["accepted_wait_ms"]["p99"]
    waits = f"half of the orders were answered within {half:.0f} ms, 99 % within {most:.0f} ms"
    yield label(opening - 8, answers.top + 42, waits, "end")
    yield f'<path class="opening" d="M{sold_out:.1f} {answers.top - 26:g}V{stock.bottom:g}"/>'
    after = summary["first_sold_out_ms"] / 1000
    yield label(sold_out + 8, answers.top - 16, f"first sold_out after {after:.2f} s")


def _x(at_ms: float) -> float:
    return LEFT + (RIGHT - LEFT) * (at_ms - FROM_MS) / (TO_MS - FROM_MS)


if __name__ == "__main__":
    PICTURE.write_text(render(json.loads(RECORD.read_text())))
