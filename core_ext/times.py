"""Instants: whole milliseconds since 1970-01-01T00:00:00Z, to and from what the outside speaks.

Neither direction can overflow on what `datetime` can hold: an offset near the years 1 and 9999 leads to an instant
that is out of bounds, which the caller sees by comparing with the limits, never by an exception.
"""

from datetime import UTC, datetime, timedelta

from core_ext.limits import TIME_MS_MAX, TIME_MS_MIN

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAIVE_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - wall clocks are subtracted here, their offsets afterwards
MILLISECOND = timedelta(milliseconds=1)


def ms_of(moment: datetime) -> int:
    """The instant of an aware `datetime`, rounded down; it may lie outside of TIME_MS_MIN to TIME_MS_MAX by an
    offset.
    """
    offset = moment.utcoffset()
    assert offset is not None, "a time without an offset is no instant"
    # Converting to UTC first would raise OverflowError for 0001-01-01T00:00:00+01:00; timedelta has the room.
    return (moment.replace(tzinfo=None) - NAIVE_EPOCH - offset) // MILLISECOND


def text_of(ms: int) -> str:
    """RFC 3339 in UTC with three decimals, `2026-11-23T01:02:03.456Z`. OverflowError outside of the years 1 to 9999."""
    moment = EPOCH + checked(ms) * MILLISECOND
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def checked(ms: int) -> int:
    """`ms` itself. OverflowError outside of the years 1 to 9999."""
    if not TIME_MS_MIN <= ms <= TIME_MS_MAX:
        raise OverflowError("an instant outside of the years 1 to 9999")
    return ms
