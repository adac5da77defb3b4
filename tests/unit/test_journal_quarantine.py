"""The quarantine: records that the ledger refuses stay there, with the reason, until somebody has looked at them."""

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from persistence.journal import (
    RECORD_BYTES_MAX,
    Journal,
    JournalError,
    JournalFullError,
    JournalLockedError,
    Quarantined,
    Record,
    adopt,
    kept,
    quarantine,
    read_quarantine,
)
from persistence.journal.file import new_header
from persistence.journal.format import HEADER_BYTES, HEADER_COPIES, pack_head, pack_header
from persistence.journal.locked import LockedFile
from persistence.journal.quarantine import REASON_BYTES_MAX

FIRST = Record(7, 3, 1764291600123, b"refused")
SECOND = Record(2**40, 255, 0, b"")


def test_quarantine_records_are_read_with_their_reasons(tmp_path: Path) -> None:
    path = quarantine(tmp_path, "o-1", FIRST, "22021: a NUL byte")
    assert quarantine(tmp_path, "o-1", SECOND, "拒绝") == path == tmp_path / "o-1.quarantine"
    assert read_quarantine(path) == [Quarantined(FIRST, "22021: a NUL byte"), Quarantined(SECOND, "拒绝")]
    assert path.stat().st_mode & 0o777 == 0o600


def test_quarantine_same_record_again_is_there_once(tmp_path: Path) -> None:
    for record in (FIRST, SECOND, FIRST):
        path = quarantine(tmp_path, "o-1", record, "no")
    assert read_quarantine(path) == [Quarantined(FIRST, "no"), Quarantined(SECOND, "no")]


def test_quarantine_is_durable_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quarantine(tmp_path, "o-1", FIRST, "no")
    calls: list[str] = []
    for name in ("pwrite", "fdatasync"):
        call = getattr(os, name)

        def noting(*given: Any, name: str = name, call: Callable[..., Any] = call) -> Any:
            calls.append(name)
            return call(*given)

        monkeypatch.setattr(os, name, noting)
    quarantine(tmp_path, "o-1", SECOND, "no")
    assert calls == ["pwrite", "fdatasync"]


def test_quarantine_largest_record_and_longest_reason_fit(tmp_path: Path) -> None:
    record = FIRST._replace(payload=b"x" * RECORD_BYTES_MAX)
    path = quarantine(tmp_path, "o-1", record, "长" * REASON_BYTES_MAX)
    assert read_quarantine(path) == [Quarantined(record, "长" * (REASON_BYTES_MAX // 3))]


def test_quarantine_is_no_journal(tmp_path: Path) -> None:
    path = quarantine(tmp_path, "o-1", FIRST, "no")
    assert list(adopt(tmp_path)) == []
    assert kept(tmp_path) == [path]


def test_quarantine_in_use_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = quarantine(tmp_path, "o-1", FIRST, "no")
    file = LockedFile.try_open(path)
    assert file is not None
    with pytest.raises(JournalLockedError):
        quarantine(tmp_path, "o-1", SECOND, "no")
    file.release()
    assert read_quarantine(path) == [Quarantined(FIRST, "no")]
    assert kept(tmp_path) == [path]


@pytest.mark.parametrize("missing", [1, 900, 1030])
def test_quarantine_torn_by_a_crash_takes_the_next_record(tmp_path: Path, missing: int) -> None:
    path = quarantine(tmp_path, "o-1", FIRST, "no")
    quarantine(tmp_path, "o-1", SECOND._replace(payload=bytes(1000)), "torn")
    path.write_bytes(path.read_bytes()[:-missing])
    third = SECOND._replace(payload=b"x" * 2000)
    for record in (SECOND, third):
        quarantine(tmp_path, "o-1", record, "no")
    assert read_quarantine(path) == [Quarantined(record, "no") for record in (FIRST, SECOND, third)]


def test_quarantine_without_a_header_is_set_aside_and_begun_again(tmp_path: Path) -> None:
    path = quarantine(tmp_path, "o-1", FIRST, "no")
    raw = bytearray(path.read_bytes())
    for copy in HEADER_COPIES:
        raw[copy] ^= 1
    path.write_bytes(raw)
    with pytest.raises(JournalError, match="no readable header"):
        read_quarantine(path)
    quarantine(tmp_path, "o-1", SECOND, "no")
    assert read_quarantine(path) == [Quarantined(SECOND, "no")]
    (unreadable,) = set(kept(tmp_path)) - {path}
    assert unreadable.name.endswith(".unreadable")


def test_quarantine_without_space_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = quarantine(tmp_path, "o-1", FIRST, "no")
    size = path.stat().st_size

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(JournalFullError):
            quarantine(tmp_path, "o-1", SECOND, "no")
    assert path.stat().st_size == size
    quarantine(tmp_path, "o-1", SECOND, "no")
    assert len(read_quarantine(path)) == 2


def test_read_quarantine_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be read"):
        read_quarantine(tmp_path / "o-1.quarantine")


def test_read_quarantine_of_a_journal_is_an_error(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, "o-1", "host", HEADER_BYTES + 1000)
    journal.append([(1, b"a")], 0)
    with pytest.raises(JournalError, match="is a journal"):
        read_quarantine(journal.path)
    journal.close(remove=False)


@pytest.mark.parametrize("payload", [b"", b"x" * 18, struct.pack(">QBQH", 1, 2, 3, 9) + b"8 bytes."])
def test_read_quarantine_of_a_record_that_ends_early_is_an_error(tmp_path: Path, payload: bytes) -> None:
    path = tmp_path / "o-1.quarantine"
    header = new_header("o-1", "")
    path.write_bytes(pack_header(header) + pack_head(Record(1, 0, 0, payload), header.seed) + payload)
    with pytest.raises(JournalError):
        read_quarantine(path)
