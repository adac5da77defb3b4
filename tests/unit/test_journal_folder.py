"""The folder of journals: whose locks are held, who takes up an orphan, and that nothing which may hold an order goes
away.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persistence.journal import Damage, Journal, JournalError, adopt, kept, peek
from persistence.journal import folder as room
from persistence.journal.format import HEAD_BYTES, HEADER_BYTES, HEADER_COPIES
from persistence.journal.locked import LockedFile, is_locked
from persistence.journal.reading import Reader, Survey

AT_MS = 1764291600123
BYTES_MAX = 1 << 20


class Folder:
    """A folder of journals, and those of their owners who live."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.living: list[Journal] = []

    def journal(self, owner: str, *payloads: bytes) -> Journal:
        made = Journal.create(self.path, owner, f"host-of-{owner}", BYTES_MAX)
        self.living.append(made)
        for number, payload in enumerate(payloads):
            made.append([(1, payload)], AT_MS + number)
        return made

    def orphan(self, owner: str, *payloads: bytes) -> Path:
        made = self.journal(owner, *payloads)
        made.close(remove=False)
        return made.path

    def names(self) -> list[str]:
        return sorted(path.name for path in self.path.iterdir())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "journal")
    yield made
    for journal in made.living:
        journal.close(remove=False)


def adopted(folder: Folder, own: tuple[str, ...] = (), *, remove: bool = False) -> dict[str, list[bytes]]:
    """Owner -> what was found in its journal."""
    found = {}
    for orphan in adopt(folder.path, own):
        found[orphan.owner] = [record.payload for record in orphan.read()]
        orphan.close(remove=remove)
    return found


def flipped(path: Path, offset: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[offset] ^= 1
    path.write_bytes(raw)


def before_call(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, act: Callable[[], None]) -> None:
    """`act`, once, just before the next call."""
    call, todo = getattr(where, name), [act]

    def acting(*given: Any) -> Any:
        if todo:
            todo.pop()()
        return call(*given)

    monkeypatch.setattr(where, name, acting)


def test_adopt_missing_folder_has_nothing(tmp_path: Path) -> None:
    assert list(adopt(tmp_path / "none")) == []
    assert peek(tmp_path / "none") == []
    assert kept(tmp_path / "none") == []


def test_adopt_takes_every_journal_that_nobody_holds(folder: Folder) -> None:
    folder.orphan("o-1", b"a", b"b")
    folder.orphan("o-2")
    folder.journal("o-3", b"c")
    assert adopted(folder) == {"o-1": [b"a", b"b"], "o-2": []}


def test_adopt_says_whose_it_was_and_what_is_in_it(folder: Folder) -> None:
    path = folder.orphan("o-1", b"a", b"b")
    with path.open("ab") as file:
        file.write(b"torn")
    (orphan,) = adopt(folder.path)
    assert (orphan.owner, orphan.host, orphan.path) == ("o-1", "host-of-o-1", path)
    assert (orphan.records, orphan.oldest_ms, orphan.torn_bytes, orphan.damaged) == (2, AT_MS, 4, [])
    assert [record.sequence for record in orphan.read(1)] == [2]
    orphan.close(remove=False)


def test_adopt_leaves_the_callers_own(folder: Folder) -> None:
    folder.orphan("o-1")
    folder.orphan("o-2")
    assert adopted(folder, ("o-1",)) == {"o-2": []}


def test_adopt_twice_at_once_gives_each_orphan_to_one(folder: Folder) -> None:
    folder.orphan("o-1")
    folder.orphan("o-2")
    first, second = adopt(folder.path), adopt(folder.path)
    held = [next(first), next(second)]
    assert [orphan.owner for orphan in held] == ["o-1", "o-2"]
    assert list(first) == []
    assert list(second) == []
    for orphan in held:
        orphan.close(remove=False)


def test_adopt_again_after_close_finds_what_was_not_removed(folder: Folder) -> None:
    folder.orphan("o-1", b"a")
    assert adopted(folder) == {"o-1": [b"a"]}
    assert adopted(folder, remove=True) == {"o-1": [b"a"]}
    assert adopted(folder) == {}
    assert folder.names() == []


def test_adopt_file_removed_between_open_and_lock_is_not_taken(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder.orphan("o-1", b"a")
    before_call(monkeypatch, fcntl, "flock", path.unlink)
    assert adopted(folder) == {}


def test_adopt_file_replaced_between_open_and_lock_is_not_taken(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder.orphan("o-1", b"a")

    def replace() -> None:
        other = path.with_name("other")
        other.write_bytes(path.read_bytes())
        other.rename(path)

    before_call(monkeypatch, fcntl, "flock", replace)
    assert adopted(folder) == {}
    assert adopted(folder) == {"o-1": [b"a"]}


def test_adopt_file_removed_before_open_is_passed_over(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folder.orphan("o-1")
    folder.orphan("o-2")
    before_call(monkeypatch, LockedFile, "try_open", first.unlink)
    assert adopted(folder) == {"o-2": []}


def test_adopt_file_without_a_header_is_set_aside(folder: Folder) -> None:
    content = folder.orphan("o-1", b"a").read_bytes()
    for copy in HEADER_COPIES:
        flipped(folder.path / "o-1.journal", copy)
    folder.orphan("o-2")
    assert adopted(folder) == {"o-2": []}
    (path,) = kept(folder.path)
    assert path.name.startswith("o-1.journal.")
    assert path.name.endswith(".unreadable")
    assert len(path.read_bytes()) == len(content)
    assert adopted(folder) == {"o-2": []}


@pytest.mark.parametrize("copy", HEADER_COPIES)
def test_adopt_file_with_one_copy_of_its_header_is_taken(folder: Folder, copy: int) -> None:
    flipped(folder.orphan("o-1", b"a"), copy)
    assert adopted(folder) == {"o-1": [b"a"]}


def test_adopt_file_of_a_later_format_is_left_where_it_is(folder: Folder) -> None:
    path = folder.orphan("o-1", b"a")
    raw = bytearray(path.read_bytes())
    for copy in HEADER_COPIES:
        raw[copy + 8 : copy + 10] = b"\x00\x63"
    path.write_bytes(raw)
    folder.orphan("o-2")
    orphans = adopt(folder.path)
    next(orphans).close(remove=True)
    with pytest.raises(JournalError, match=r"o-1\.journal: its format is 99"):
        next(orphans)
    assert folder.names() == ["o-1.journal"]
    assert LockedFile.try_open(path) is not None


def test_adopt_file_that_cannot_be_opened_does_not_hide_the_others(folder: Folder) -> None:
    (folder.orphan("o-1")).unlink()
    (folder.path / "o-1.journal").symlink_to("o-2.journal")
    folder.orphan("o-2", b"a")
    orphans = adopt(folder.path)
    orphan = next(orphans)
    assert orphan.owner == "o-2"
    orphan.close(remove=False)
    with pytest.raises(JournalError, match=r"1 journals could not be taken up: .*o-1\.journal"):
        next(orphans)


def test_adopt_that_fails_in_reading_gives_the_lock_back(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.orphan("o-1", b"a")

    def fail(_: Reader) -> Survey:
        raise OSError(errno.ESTALE, "gone")

    with monkeypatch.context() as patched:
        patched.setattr(Reader, "survey", fail)
        with pytest.raises(JournalError, match="gone"):
            list(adopt(folder.path))
    assert adopted(folder) == {"o-1": [b"a"]}


def test_adopt_clears_away_what_the_dead_left_unfinished(folder: Folder) -> None:
    folder.orphan("o-1")
    (folder.path / "o-2.journal.0123456789abcdef.creating").write_bytes(b"half a header")
    adopted(folder)
    assert folder.names() == ["o-1.journal"]


def test_adopt_leaves_what_the_living_have_not_finished(folder: Folder) -> None:
    folder.orphan("o-1")
    staged = LockedFile._stage(folder.path / "o-2.journal")
    adopted(folder)
    assert staged.path.exists()
    staged.release()


def test_create_whose_file_is_cleared_away_before_its_lock_makes_another(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.orphan("o-1")

    def clear_away() -> None:
        (path,) = folder.path.glob("*.creating")
        path.unlink()

    before_call(monkeypatch, fcntl, "flock", clear_away)
    folder.journal("o-2", b"a")
    assert folder.names() == ["o-1.journal", "o-2.journal"]


def test_create_whose_file_somebody_tries_the_lock_of_makes_another(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.orphan("o-1")
    others: list[LockedFile | None] = []

    def lock() -> None:
        (path,) = folder.path.glob("*.creating")
        others.append(LockedFile.try_open(path))

    before_call(monkeypatch, fcntl, "flock", lock)
    folder.journal("o-2", b"a")
    (other,) = others
    assert other is not None
    other.release()
    assert [peeked.owner for peeked in peek(folder.path)] == ["o-1", "o-2"]


def test_create_is_visible_only_when_it_is_locked_and_whole(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each step of the making whoever looks finds no journal, or one that is held."""
    seen: list[Any] = []
    for name in ("pwrite", "fsync", "link", "unlink"):
        call = getattr(os, name)

        def looking(*given: Any, call: Any = call) -> Any:
            seen.append((adopted(folder), [peeked.locked for peeked in peek(folder.path)]))
            return call(*given)

        monkeypatch.setattr(os, name, looking)
    folder.path.mkdir()
    folder.journal("o-1")
    assert {str(look) for look in seen} == {"({}, [])", "({}, [True])"}


def test_orphan_with_damage_is_kept_when_it_is_to_be_removed(folder: Folder) -> None:
    path = folder.orphan("o-1", b"a", b"b")
    flipped(path, HEADER_BYTES)
    (orphan,) = adopt(folder.path)
    assert orphan.damaged == [Damage(HEADER_BYTES, HEAD_BYTES + 1)]
    assert [record.payload for record in orphan.read()] == [b"b"]
    orphan.close(remove=True)
    assert adopted(folder) == {}
    (left,) = kept(folder.path)
    assert left.name.endswith(".damaged")


def test_orphan_with_a_torn_tail_goes_away_when_it_is_to_be_removed(folder: Folder) -> None:
    path = folder.orphan("o-1", b"a", b"b")
    path.write_bytes(path.read_bytes()[:-1])
    assert adopted(folder, remove=True) == {"o-1": [b"a"]}
    assert folder.names() == []


def test_orphan_is_held_until_it_is_closed(folder: Folder) -> None:
    folder.orphan("o-1")
    (orphan,) = adopt(folder.path)
    assert adopted(folder) == {}
    orphan.close(remove=False)
    orphan.close(remove=True)
    assert adopted(folder) == {"o-1": []}


def test_orphan_closed_reads_nothing(folder: Folder) -> None:
    folder.orphan("o-1")
    (orphan,) = adopt(folder.path)
    orphan.close(remove=False)
    with pytest.raises(AssertionError, match="has been closed"):
        orphan.read()


def test_peek_tells_of_every_journal(folder: Folder) -> None:
    one = folder.orphan("o-1", b"a", b"b")
    two = folder.journal("o-2")
    flipped(one, HEADER_BYTES)
    damage = [Damage(HEADER_BYTES, HEAD_BYTES + 1)]
    assert peek(folder.path) == [
        ("o-1", "host-of-o-1", one, HEADER_BYTES + 2 * HEAD_BYTES + 2, 1, False, AT_MS + 1, 0, damage),
        ("o-2", "host-of-o-2", two.path, HEADER_BYTES, 0, True, None, 0, []),
    ]


def test_peek_takes_no_lock(folder: Folder) -> None:
    folder.orphan("o-1", b"a")
    peek(folder.path)
    assert adopted(folder) == {"o-1": [b"a"]}


def test_is_locked_leaves_the_lock_free(folder: Folder) -> None:
    path = folder.orphan("o-1")
    with path.open("rb") as file:
        assert not is_locked(file.fileno())
        orphan = LockedFile.try_open(path)
        assert orphan is not None
        assert is_locked(file.fileno())
    orphan.release()


def test_peek_file_without_a_header_is_all_damage(folder: Folder) -> None:
    path = folder.orphan("o-1", b"a")
    path.write_bytes(bytes(100))
    assert peek(folder.path) == [("o-1", "", path, 100, 0, False, None, 0, [Damage(0, 100)])]


def test_peek_file_that_goes_away_is_left_out(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder.orphan("o-1")
    before_call(monkeypatch, room, "opened", path.unlink)
    assert peek(folder.path) == []


def test_peek_journal_cleared_meanwhile_is_not_damaged(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header is read before the clear, and its records after it."""
    journal = folder.journal("o-1", b"old" * 9, b"old" * 9)

    def clear() -> None:
        journal.clear()
        journal.append([(1, b"new")], AT_MS + 9)

    before_call(monkeypatch, Reader, "survey", clear)
    (peeked,) = peek(folder.path)
    assert (peeked.records, peeked.oldest_ms, peeked.torn_bytes, peeked.damaged) == (1, AT_MS + 9, 0, [])


@given(raw=st.binary(max_size=300), headed=st.booleans())
def test_adopt_any_bytes_are_taken_or_set_aside(
    tmp_path_factory: pytest.TempPathFactory,
    raw: bytes,
    headed: bool,  # noqa: FBT001 - hypothesis
) -> None:
    folder = Folder(tmp_path_factory.mktemp("journal"))
    path = folder.orphan("o-1")
    path.write_bytes(path.read_bytes() + raw if headed else raw)
    assert adopted(folder, remove=True) == ({"o-1": []} if headed else {})
    assert len(kept(folder.path)) == (0 if headed else 1)
