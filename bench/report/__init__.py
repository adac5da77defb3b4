"""The report of a benchmark, made from its JSON and nothing else: a page, charts, and tables for documents.

The same record gives the same bytes. It never hides a run, and never counts a refusal as an order.
"""

from bench.report.figures import render_svgs
from bench.report.page import render_html
from bench.report.table import render_table

__all__ = ["render_html", "render_svgs", "render_table"]
