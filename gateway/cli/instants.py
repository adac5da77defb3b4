"""How a point in time is named on the command line: RFC 3339, or how long ago."""

import datetime as dt
import re

import click

SPAN = re.compile(r"(\d{1,6})([smhd])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def instant(text: str) -> dt.datetime:
    """The time that `--since` names; without an offset it is in UTC."""
    if span := SPAN.fullmatch(text):
        return dt.datetime.now(dt.UTC) - dt.timedelta(seconds=int(span[1]) * SECONDS[span[2]])
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise click.UsageError(
            f"--since {text}: it has to be like 2026-11-11T00:00:00Z, or 90s, 10m, 2h, 7d"
        ) from error
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)
