"""The buyers' history: on the disk before a request is sent, and readable while it grows."""

import asyncio
from pathlib import Path

from bench.faults.history import Entry, History, Reader

INVOKED = Entry(1.0, "invoke", "key", 1, items=(("A", 2),), customer="c")
ANSWERED = Entry(2.5, "ok", "key", 1, status=201, order_id="id", digest="d")


async def written(path: Path) -> History:
    history = History(path)
    asyncio.get_running_loop().create_task(history.run())
    await history.announce(INVOKED)
    return history


async def test_history_announced_entry_is_on_the_disk_when_announce_returns(tmp_path: Path) -> None:
    path = tmp_path / "history"
    await written(path)
    reader = Reader(path)
    assert reader.look() == 1
    assert reader.entries == [INVOKED]


async def test_history_closed_has_all_that_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "history"
    history = History(path)
    writing = asyncio.create_task(history.run())
    await history.announce(INVOKED)
    history.note(ANSWERED)
    history.close()
    await writing
    reader = Reader(path)
    reader.look()
    assert reader.entries == [INVOKED, ANSWERED]
    assert (reader.first_acknowledged_after(2.0), reader.first_acknowledged_after(3.0)) == (2.5, None)


async def test_reader_line_that_is_half_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "history"
    await written(path)
    line = path.read_bytes()
    path.write_bytes(line + line[:7])
    reader = Reader(path)
    assert reader.look() == 1
    path.write_bytes(line + line)
    assert reader.look() == 1
    assert reader.entries == [INVOKED, INVOKED]


def test_reader_without_a_file_reads_nothing(tmp_path: Path) -> None:
    assert Reader(tmp_path / "none").look() == 0


def test_reader_longest_silence_is_between_answers_or_at_an_end_of_the_span(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "history")
    reader.acknowledged_at = [1.0, 4.0, 5.0, 9.0]
    assert reader.longest_silence(3.5, 8.0) == 3.0  # from 5.0 to the end
    assert reader.longest_silence(2.0, 6.0) == 2.0  # until the first
    assert reader.longest_silence(3.0, 9.5) == 4.0  # between two
