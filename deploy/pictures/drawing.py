"""What all pictures share: the ground, the letters, scales, and colours that follow the reader's light or dark mode.

A picture is text made from a record: the same record gives the same bytes. It loads nothing and runs nothing, and its
ground is its own, so that it can be read on any page. Texts are given as they are to stand: whoever draws names from
outside escapes them.
"""

from collections.abc import Iterable
from typing import NamedTuple

LIGHT = """
    text { font: 13px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #57606a }
    .title { font-size: 18px; font-weight: 600; fill: #1f2328 } .strong { font-weight: 600; fill: #1f2328 }
    .end { text-anchor: end } .middle { text-anchor: middle }
    .ground { fill: #ffffff; stroke: #d0d7de } .grid { stroke: #eaeef2 } .axis { stroke: #8c959f }"""
DARK = """
      text { fill: #9198a1 } .title, .strong { fill: #f0f6fc }
      .ground { fill: #0d1117; stroke: #3d444d } .grid { stroke: #21262d } .axis { stroke: #656c76 }"""


class Panel(NamedTuple):
    """A part of the picture with a scale of its own: pixels from `top` down to `bottom`, values from 0 to `most`."""

    top: float
    bottom: float
    most: int
    step: int
    title: str

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * value / self.most


class Size(NamedTuple):
    width: int
    height: int


def style(light: str, dark: str) -> str:
    """The shared colours and those of one picture."""
    return f"{LIGHT}{light}\n    @media (prefers-color-scheme: dark) {{{DARK}{dark}\n    }}"


def picture(size: Size, style: str, title: str, description: str, parts: Iterable[str]) -> str:
    """The SVG: `title` and `description` are what a screen reader says."""
    head = (
        f"<title>{title}</title>",
        f"<desc>{description}</desc>",
        f"<style>{style}\n  </style>",
        f'<rect class="ground" x=".5" y=".5" width="{size.width - 1}" height="{size.height - 1}" rx="10"/>',
    )
    inside = "\n".join(f"  {part}" for part in (*head, *parts))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size.width} {size.height}" role="img">\n{inside}\n'
        "</svg>\n"
    )


def label(x: float, y: float, text: str, kind: str = "") -> str:
    """A line of text whose baseline is `y`; `kind` names its classes."""
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:g}" y="{y:g}">{text}</text>'
