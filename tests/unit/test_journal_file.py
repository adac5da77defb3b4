"""The side of a journal that its owner writes to: what is acknowledged, what is taken back, and when it is over."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from persistence.journal import (
    RECORD_BYTES_MAX,
    Journal,
    JournalError,
    JournalFullError,
    JournalPoisonedError,
    Record,
    adopt,
    kept,
)
from persistence.journal.format import HEAD_BYTES, HEADER_BYTES

OWNER = "0198f7a2-6f6e-7d70-8000-000000000001"
AT_MS = 1764291600123
BYTES_MAX = 1 << 20


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal.create(tmp_path / "journal", OWNER, "host-1", BYTES_MAX)
    yield made
    made.close(remove=False)


def payloads(records: list[Record]) -> list[bytes]:
    return [record.payload for record in records]


def adopted(journal: Journal) -> list[bytes]:
    """What somebody else finds in it after the owner's end."""
    journal.close(remove=False)
    (orphan,) = adopt(journal.path.parent)
    found = payloads(orphan.read())
    orphan.close(remove=False)
    return found


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def half_then(code: int) -> Callable[..., int]:
    """A write that takes half of what it is given, and fails from then on."""
    pwrite, calls = os.pwrite, iter(range(2))

    def write(descriptor: int, content: memoryview, at: int) -> int:
        if next(calls, 1):
            raise OSError(code, os.strerror(code))
        return pwrite(descriptor, content[: len(content) // 2], at)

    return write


def noted(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """The calls of these that are made from now on; an fsync says of what."""
    calls: list[str] = []
    for name in names:
        call = getattr(os, name)

        def noting(*given: Any, name: str = name, call: Callable[..., Any] = call) -> Any:
            is_folder = name == "fsync" and stat.S_ISDIR(os.fstat(given[0]).st_mode)
            calls.append("fsync of the folder" if is_folder else name)
            return call(*given)

        monkeypatch.setattr(os, name, noting)
    return calls


def test_create_folder_and_file_are_private(journal: Journal) -> None:
    assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_create_leaves_one_file_with_the_name_of_its_owner(journal: Journal) -> None:
    assert [path.name for path in journal.path.parent.iterdir()] == [f"{OWNER}.journal"]
    assert journal.path.name == f"{OWNER}.journal"
    assert journal.path.stat().st_nlink == 1
    assert (journal.size, journal.records, journal.poisoned) == (HEADER_BYTES, 0, False)
    assert journal.path.stat().st_size == HEADER_BYTES


def test_create_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = noted(monkeypatch, "mkdir", "pwrite", "fsync", "link", "unlink")
    journal = Journal.create(tmp_path / "journal", OWNER, "host-1", BYTES_MAX)
    made = ["mkdir", "fsync of the folder"]
    assert calls == [*made, "pwrite", "fsync", "link", "unlink", "fsync of the folder"]
    journal.close(remove=False)


def test_create_second_of_an_owner_is_refused_and_harms_nothing(journal: Journal) -> None:
    journal.append([(1, b"a")], AT_MS)
    with pytest.raises(JournalError, match="cannot have a journal"):
        Journal.create(journal.path.parent, OWNER, "host-1", BYTES_MAX)
    assert len(list(journal.path.parent.iterdir())) == 1
    assert adopted(journal) == [b"a"]


def test_create_owner_that_names_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot have a journal"):
        Journal.create(tmp_path, "../o", "host-1", BYTES_MAX)
    assert list(tmp_path.iterdir()) == []


def test_create_where_no_folder_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match="cannot have a journal"):
        Journal.create(tmp_path / "file" / "journal", OWNER, "host-1", BYTES_MAX)


@pytest.mark.parametrize("call", ["fsync", "link", "pwrite"])
def test_create_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(errno.EIO))
        with pytest.raises(JournalError, match="cannot have a journal"):
            Journal.create(tmp_path, OWNER, "host-1", BYTES_MAX)
    assert list(tmp_path.iterdir()) == []


def test_append_records_are_read_with_all_that_was_given(journal: Journal) -> None:
    journal.append([(1, b"a"), (255, b"")], AT_MS)
    journal.append([(0, b"c" * 1000)], AT_MS + 1)
    assert journal.read() == [
        Record(1, 1, AT_MS, b"a"),
        Record(2, 255, AT_MS, b""),
        Record(3, 0, AT_MS + 1, b"c" * 1000),
    ]
    assert journal.records == 3
    assert journal.size == journal.path.stat().st_size == HEADER_BYTES + 3 * HEAD_BYTES + 1001


def test_append_syncs_once_after_all_is_written(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = noted(monkeypatch, "pwrite", "fdatasync")
    journal.append([(1, b"a"), (1, b"b")], AT_MS)
    assert calls == ["pwrite", "fdatasync"]


def test_append_of_nothing_does_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
    journal.append([], AT_MS)
    assert (journal.size, journal.records, journal.poisoned) == (HEADER_BYTES, 0, False)


def test_append_short_writes_are_continued(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, at: pwrite(descriptor, content[:7], at))
    journal.append([(1, b"a" * 100), (1, b"b" * 100)], AT_MS)
    assert adopted(journal) == [b"a" * 100, b"b" * 100]


def test_append_largest_record_is_taken(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path, OWNER, "host-1", 2 * RECORD_BYTES_MAX)
    journal.append([(1, b"a" * RECORD_BYTES_MAX)], AT_MS)
    assert adopted(journal) == [b"a" * RECORD_BYTES_MAX]


def test_append_larger_record_is_a_bug_and_writes_nothing(journal: Journal) -> None:
    with pytest.raises(AssertionError, match="too large"):
        journal.append([(1, b"a"), (1, bytes(RECORD_BYTES_MAX + 1))], AT_MS)
    assert (journal.size, journal.poisoned) == (HEADER_BYTES, False)
    assert adopted(journal) == []


def test_append_beyond_the_bound_is_refused_and_a_smaller_one_taken(journal: Journal) -> None:
    journal.append([(1, b"a")], AT_MS)
    size = journal.size
    room_left = BYTES_MAX - size - HEAD_BYTES
    with pytest.raises(JournalFullError, match="larger than"):
        journal.append([(1, bytes(room_left + 1))], AT_MS)
    assert (journal.size, journal.path.stat().st_size, journal.records, journal.poisoned) == (size, size, 1, False)
    journal.append([(1, b"b" * room_left)], AT_MS)
    assert journal.size == BYTES_MAX
    assert adopted(journal) == [b"a", b"b" * room_left]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_append_without_space_takes_back_what_was_written(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    journal.append([(1, b"a")], AT_MS)
    size = journal.size
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", half_then(code))
        with pytest.raises(JournalFullError, match="no space"):
            journal.append([(1, b"b" * 100), (1, b"c" * 1000)], AT_MS)
    assert (journal.size, journal.path.stat().st_size, journal.records, journal.poisoned) == (size, size, 1, False)
    journal.append([(1, b"d")], AT_MS)
    assert [record.sequence for record in journal.read()] == [1, 2]
    assert adopted(journal) == [b"a", b"d"]


@pytest.mark.parametrize("call", ["ftruncate", "fsync"])
def test_append_that_cannot_be_taken_back_poisons(journal: Journal, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    journal.append([(1, b"a")], AT_MS)
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", half_then(errno.ENOSPC))
        patched.setattr(os, call, failing(errno.EIO))
        with pytest.raises(JournalPoisonedError, match="cannot be undone"):
            journal.append([(1, b"b" * 100)], AT_MS)
    assert journal.poisoned
    assert adopted(journal) == [b"a"]


@pytest.mark.parametrize(
    ("call", "code"), [("pwrite", errno.EIO), ("fdatasync", errno.EIO), ("fdatasync", errno.ENOSPC)]
)
def test_append_that_fails_poisons_and_nothing_is_written_any_more(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    journal.append([(1, b"a")], AT_MS)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(code))
        with pytest.raises(JournalPoisonedError):
            journal.append([(1, b"b")], AT_MS)
    assert (journal.poisoned, journal.records) == (True, 1)
    size = journal.path.stat().st_size
    for attempt in (lambda: journal.append([(1, b"c")], AT_MS), lambda: journal.append([], AT_MS), journal.clear):
        with pytest.raises(JournalPoisonedError, match="never written to again"):
            attempt()
    assert journal.path.stat().st_size == size
    assert payloads(journal.read()) == [b"a"]
    assert adopted(journal)[:1] == [b"a"]


def test_append_that_is_interrupted_poisons(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.append([(1, b"a")], AT_MS)
    assert journal.poisoned


def test_read_gives_pieces_in_order(journal: Journal) -> None:
    journal.append([(1, bytes([number]) * 100) for number in range(10)], AT_MS)
    after, sizes = 0, []
    while piece := journal.read(after, 350):
        after = piece[-1].sequence
        sizes.append(len(piece))
    assert sizes == [2, 2, 2, 2, 2]
    assert after == 10


def test_read_goes_on_with_what_was_appended_since(journal: Journal) -> None:
    journal.append([(1, b"a")], AT_MS)
    assert payloads(journal.read()) == [b"a"]
    assert journal.read(1) == []
    journal.append([(1, b"b")], AT_MS)
    assert payloads(journal.read(1)) == [b"b"]
    assert payloads(journal.read()) == [b"a", b"b"]


def test_read_does_not_show_what_was_not_acknowledged(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fdatasync", failing(errno.EIO))
    with pytest.raises(JournalPoisonedError):
        journal.append([(1, b"a")], AT_MS)
    assert journal.read() == []


@pytest.mark.parametrize("hit", [0, 1])
def test_read_that_misses_an_acknowledged_record_poisons_and_the_file_is_kept(journal: Journal, hit: int) -> None:
    journal.append([(1, b"a" * 100), (1, b"b" * 100)], AT_MS)
    with journal.path.open("r+b") as file:
        file.seek(HEADER_BYTES + hit * (HEAD_BYTES + 100) + HEAD_BYTES)
        file.write(b"?")
    found, after = [], 0
    while piece := journal.read(after):
        after = piece[-1].sequence
        found += payloads(piece)
    assert found == [[b"b" * 100], [b"a" * 100]][hit]
    assert journal.poisoned
    assert len(journal.damaged) == 1
    journal.close(remove=True)
    assert not journal.path.exists()
    assert len(kept(journal.path.parent)) == 1


def test_clear_empties_the_file_and_sequences_go_on(journal: Journal) -> None:
    journal.append([(1, b"a"), (1, b"b")], AT_MS)
    assert len(journal.read()) == 2
    journal.clear()
    assert (journal.size, journal.path.stat().st_size, journal.records) == (HEADER_BYTES, HEADER_BYTES, 0)
    assert journal.read() == []
    journal.append([(1, b"c")], AT_MS)
    assert [(record.sequence, record.payload) for record in journal.read()] == [(3, b"c")]
    assert adopted(journal) == [b"c"]


def test_clear_of_nothing_touches_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    journal.clear()
    assert not journal.poisoned


def test_clear_then_crash_with_the_old_bytes_behind_finds_only_the_new(journal: Journal) -> None:
    journal.append([(1, b"old" * 10)] * 20, AT_MS)
    before = journal.path.read_bytes()
    journal.clear()
    journal.append([(1, b"new")], AT_MS)
    after = journal.path.read_bytes()
    journal.path.write_bytes(after + before[len(after) :])
    assert adopted(journal) == [b"new"]


def test_clear_cut_short_between_header_and_file_finds_nothing(journal: Journal) -> None:
    """By then all has been committed."""
    journal.append([(1, b"old" * 10)] * 20, AT_MS)
    before = journal.path.read_bytes()
    journal.clear()
    header = journal.path.read_bytes()
    journal.path.write_bytes(header + before[HEADER_BYTES:])
    assert adopted(journal) == []


@pytest.mark.parametrize("call", ["pwrite", "ftruncate", "fsync"])
def test_clear_that_fails_poisons(journal: Journal, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    journal.append([(1, b"a")], AT_MS)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing(errno.EIO))
        with pytest.raises(JournalPoisonedError, match="cannot be cleared"):
            journal.clear()
    assert journal.poisoned


def test_clear_makes_room(journal: Journal) -> None:
    journal.append([(1, bytes(BYTES_MAX // 2))], AT_MS)
    with pytest.raises(JournalFullError):
        journal.append([(1, bytes(BYTES_MAX // 2))], AT_MS)
    journal.clear()
    journal.append([(1, bytes(BYTES_MAX // 2))], AT_MS)
    assert journal.records == 1


def test_close_with_remove_takes_the_file_away(journal: Journal) -> None:
    journal.close(remove=True)
    assert list(journal.path.parent.iterdir()) == []


def test_close_with_remove_is_durable(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = noted(monkeypatch, "unlink", "fsync")
    journal.close(remove=True)
    assert calls == ["unlink", "fsync of the folder"]


def test_close_repeated_does_nothing(journal: Journal) -> None:
    journal.close(remove=False)
    journal.close(remove=True)
    assert journal.path.exists()


def test_close_that_cannot_remove_gives_up_the_lock(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    journal.append([(1, b"a")], AT_MS)
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", failing(errno.EROFS))
        with pytest.raises(JournalError, match="cannot be removed"):
            journal.close(remove=True)
    assert adopted(journal) == [b"a"]


def test_closed_journal_touches_no_other_file(journal: Journal, tmp_path: Path) -> None:
    """The number of its descriptor may be another file's by now."""
    journal.append([(1, b"a")], AT_MS)
    journal.close(remove=False)
    with (tmp_path / "other").open("w+b"):
        with pytest.raises(JournalError, match="has been closed"):
            journal.append([(1, b"b")], AT_MS)
        with pytest.raises(JournalError, match="has been closed"):
            journal.clear()
        with pytest.raises(AssertionError, match="has been closed"):
            journal.read()
    assert (tmp_path / "other").read_bytes() == b""
