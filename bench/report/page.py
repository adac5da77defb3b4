"""The report of `floodgate bench` as one HTML file that can be sent by mail: it loads nothing, and reads in light and
dark, on paper and on a telephone.

It says first whether there is a headline, then where and how it was measured, then what; every run stands in it. What
was missed or not measured is as easy to find as what was met.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from bench.record import Environment, Record, Result
from bench.report import table, words
from bench.report.figures import measured, render_svgs, sound
from bench.report.words import number

CODE = re.compile(r"`([^`]+)`")
STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --quiet: #57606a; --line: #d0d7de; --ground: #ffffff; --soft: #f6f8fa;
  --good: #116b3b; --bad: #9a5b00 }
@media (prefers-color-scheme: dark) { :root { --ink: #f0f6fc; --quiet: #9198a1; --line: #3d444d; --ground: #0d1117;
  --soft: #151b23; --good: #3fb977; --bad: #d69a3a } }
body { margin: 0 auto; padding: 24px 16px 64px; max-width: 880px; background: var(--ground); color: var(--ink);
  font: 15px/1.5 -apple-system, "Segoe UI", Helvetica, Arial, sans-serif }
h1 { font-size: 26px; margin: 0 0 4px } h2 { font-size: 19px; margin: 36px 0 8px } p, li { max-width: 72ch }
.quiet { color: var(--quiet) } .claim { font-size: 18px; border-left: 4px solid var(--good); padding: 4px 0 4px 14px }
.refused { border-color: var(--bad) } .yes { color: var(--good) } .no { color: var(--bad); font-weight: 600 }
.wide { overflow-x: auto; margin: 12px 0 } .wide svg { display: block; width: 100%; min-width: 620px }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--quiet); font-weight: 600; white-space: nowrap } td:first-child { white-space: nowrap }
td:last-child:nth-child(n + 6) { min-width: 34ch } .claim p { margin: 4px 0 }
@media print { .wide { overflow: visible } }
"""


def render_html(record: Record) -> str:
    """The whole page."""
    drawn = {name: chart(svg) for name, svg in render_svgs(record).items()}
    return document(
        "Floodgate: benchmark",
        [
            f"<h1>Floodgate: benchmark</h1>\n<p class=quiet>{escape(record.environment.date)}</p>",
            _headline(record),
            about(record.environment, record.method),
            section("Targets", drawn.get("bench-targets.svg"), _targets(record), _missed(record)),
            section(
                "Measured",
                _medians(record),
                *(drawn.get(f"bench-{name}.svg") for name in ("orders", "ceilings", "refusals", "latency", "cpu")),
                _cpu(record),
            ),
            section("Ratios", _ratios(record)),
            section("Every run", *(_runs(key, found) for key, found in record.scenarios.items())),
        ],
    )


def document(title: str, parts: Iterable[str]) -> str:
    head = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">'
    inside = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n'
        f"</head>\n<body>\n{inside}\n</body>\n</html>\n"
    )


def section(title: str, *parts: str | None) -> str:
    """Nothing when it would be empty."""
    inside = "\n".join(part for part in parts if part)
    return f"<h2>{escape(title)}</h2>\n{inside}" if inside else ""


def chart(svg: str) -> str:
    return f"<div class=wide>{svg}</div>"


def rows(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table; the cells are HTML already."""
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in lines)
    return f"<div class=wide><table>\n<tr>{head}</tr>\n{body}\n</table></div>"


def about(environment: Environment, method: Sequence[str]) -> str:
    """Where and how: before any figure."""
    said = {"processor, memory, system": words.machine(environment), "FLOODGATE_CORE": environment.core}
    said |= {"load before": words.load(environment), "settings": _named(environment.settings)}
    said |= {"durability": _named(environment.durability), "versions": _named(environment.versions)}
    said |= {"commit": environment.commit or "", "command": environment.command, "note": environment.note}
    where = rows(("", ""), [[escape(name), escape(value)] for name, value in said.items() if value])
    return section("Where", where) + "\n" + section("How", listed(method))


def listed(sentences: Sequence[str]) -> str:
    """A list; what stands in backticks is code."""
    lines = (CODE.sub(r"<code>\1</code>", escape(one)) for one in sentences)
    return f"<ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>" if sentences else ""


def _named(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _headline(record: Record) -> str:
    said = table.headline(record).replace("**", "")
    return claim([said], sound=record.headline is not None)


def claim(sentences: Sequence[str], *, sound: bool) -> str:
    """What is said of the whole; unsound ones say why there is nothing to say."""
    said = "".join(f"<p>{escape(one)}</p>" for one in sentences)
    return f'<div class="claim{"" if sound else " refused"}">{said}</div>'


def _targets(record: Record) -> str:
    lines = []
    for one in record.targets:
        values = measured(record, one.of)
        spread = f"{number(min(values))} to {number(max(values))}" if values else ""
        mark = f'<span class="{"yes" if one.met else "no"}">{words.verdict(one)}</span>'
        lines.append([escape(one.of), words.asked(one), number(one.measured), spread, mark])
    return rows(("", "target", "measured", "lowest to highest", ""), lines) if lines else ""


def _missed(record: Record) -> str:
    lines = [[escape(of), escape(why)] for of, why in record.missed.items()]
    return rows(("not measured", "because"), lines) if lines else ""


def _medians(record: Record) -> str:
    lines = [[escape(cell) for cell in table.cell_line(found)] for found in sound(record)]
    return rows(table.HEADS, lines) if lines else ""


def _cpu(record: Record) -> str:
    found = {words.cell(one): one.cpu_us_per_order for one in record.scenarios.values() if one.cpu_us_per_order}
    names = [*words.ROLES, *sorted({role for cpu in found.values() for role in cpu} - {*words.ROLES})]
    lines = [
        [escape(cell), *(number(cpu[role]) if role in cpu else "" for role in names)] for cell, cpu in found.items()
    ]
    return rows(("µs", *names), lines) if lines else ""


def _ratios(record: Record) -> str:
    lines = [
        [escape(of), number(one.median), f"{number(one.min)} to {number(one.max)}", ", ".join(map(number, one.rounds))]
        for of, one in record.ratios.items()
    ]
    return rows(("", "median", "lowest to highest", "of each round"), lines) if lines else ""


def _runs(key: str, found: Result) -> str:
    """Every run of a cell, with what it was checked against."""
    lines = []
    for run in found.runs:
        late = (
            f"{number(run.p50_ms)} / {number(run.p99_ms)}" if run.p50_ms is not None and run.p99_ms is not None else ""
        )
        figures = ", ".join(f"{name} {number(value)}" for name, value in run.figures.items())
        said = "; ".join(one for one in (words.books(run.verified), figures, *run.faults, run.void) if one)
        lines.append(
            [str(run.round), number(run.value), number(run.seconds), late, words.answers(run.answers), escape(said)]
        )
    heads = ("round", words.unit(found), "seconds", "p50 / p99 ms", "answers", "books, figures, faults")
    return f"<h3>{escape(key)}</h3>\n<p class=quiet>{escape(found.about)}</p>\n{rows(heads, lines)}"
