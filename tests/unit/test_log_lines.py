"""Log lines: `write` returns whatever becomes of the reader; what does not fit is dropped whole and counted."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.log_lines import LogLines

PIPE_BYTES = 1 << 16


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)
    os.close(reader)


def drained(lines: LogLines) -> None:
    assert lines.drain(10.0)


def read_until(reader: int, size: int) -> bytes:
    found = b""
    while len(found) < size:
        found += os.read(reader, size - len(found))
    return found


def test_lines_come_out_whole_and_in_order(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LogLines(writer)
    sent = [b"line %d\n" % number for number in range(1000)]
    for line in sent:
        lines.write(line)
    drained(lines)
    assert read_until(reader, len(b"".join(sent))) == b"".join(sent)
    assert lines.dropped == 0


def test_lines_that_nobody_reads_are_bounded_by_count_dropped_and_counted(pipe: tuple[int, int]) -> None:
    lines = LogLines(pipe[1], lines_max=100)
    line = bytes(4095) + b"\n"
    for _ in range(1000):
        lines.write(line)
    assert 1000 - 100 - 2 * PIPE_BYTES // len(line) <= lines.dropped <= 1000 - 100
    assert not lines.drain(0.0)
    read_until(pipe[0], (1000 - lines.dropped) * len(line))
    drained(lines)


def test_lines_that_nobody_reads_are_bounded_by_bytes(pipe: tuple[int, int]) -> None:
    lines = LogLines(pipe[1], bytes_max=1 << 20)
    lines.write(bytes(1 << 20) + b"\n")
    assert lines.dropped == 1
    drained(lines)


def test_lines_are_taken_again_once_somebody_reads(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LogLines(writer, lines_max=2)
    line = bytes(2 * PIPE_BYTES) + b"\n"
    sent = 0
    while not lines.dropped:
        lines.write(line)
        sent += 1
    read_until(reader, (sent - 1) * len(line))
    drained(lines)
    lines.write(b"again\n")
    assert read_until(reader, 6) == b"again\n"
    assert lines.dropped == 1


def test_lines_whose_reader_is_gone_are_dropped_and_raise_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = LogLines(writer)
    for _ in range(3):
        lines.write(b"to nobody\n")
    drained(lines)
    assert lines.dropped == 3
    os.close(writer)


def test_lines_of_a_descriptor_that_does_not_block_are_all_written(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    lines = LogLines(writer)
    line = bytes(4095) + b"\n"
    for _ in range(100):
        lines.write(line)
    read_until(reader, 100 * len(line))
    drained(lines)
    assert lines.dropped == 0


def test_lines_thread_gets_no_signal(pipe: tuple[int, int]) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    lines = LogLines(pipe[1])
    lines.write(b"x\n")
    drained(lines)
    assert lines._thread is not None
    status = Path(f"/proc/self/task/{lines._thread.native_id}/status").read_text().splitlines()
    (blocked,) = [int(line.split()[1], 16) for line in status if line.startswith("SigBlk:")]
    assert blocked & 1 << signal.SIGTERM - 1
    assert blocked & 1 << signal.SIGINT - 1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_lines_of_a_process_that_gets_no_thread_are_written_once_it_does(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lines = LogLines(pipe[1])
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        lines.write(b"one\n")
    lines.write(b"two\n")
    assert read_until(pipe[0], 8) == b"one\ntwo\n"
    assert lines.dropped == 0
