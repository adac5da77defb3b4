"""Power loss: what strace has seen synced stays of a journal, and nothing else is relied on."""

import random
from pathlib import Path

import pytest

from bench.faults.power import Extent, Synced, forget

FOLDER = Path("/data/journal")
PATH = f"{FOLDER}/aa.journal"
STAGED = f"{PATH}.0123456789abcdef.creating"
WRITE = '7 pwrite64(14<{}>, ""..., 300, {}) = 300'
SYNC = "7 fdatasync(14<{}>) = 0 (DELAYED)"


def after(*lines: str, before: dict[str, int] | None = None) -> Extent:
    synced = Synced(FOLDER, {PATH: 8192} if before is None else before)
    synced.hear(lines)
    return synced.files[PATH]


def test_synced_write_that_a_sync_has_covered_is_durable() -> None:
    file = after(WRITE.format(PATH, 8192), SYNC.format(PATH))
    assert (file.begun, file.written, file.synced) == (8192, 8492, 8492)


def test_synced_write_behind_the_last_sync_is_not_durable() -> None:
    file = after(WRITE.format(PATH, 8192), SYNC.format(PATH), WRITE.format(PATH, 8492))
    assert (file.written, file.synced) == (8792, 8492)


def test_synced_write_that_comes_while_a_sync_is_under_way_is_not_covered() -> None:
    file = after(
        f"7 fdatasync(14<{PATH}> <unfinished ...>",
        WRITE.format(PATH, 8192).replace("7 ", "8 ", 1),
        "7 <... fdatasync resumed>) = 0",
    )
    assert (file.written, file.synced) == (8492, 8192)


@pytest.mark.parametrize(
    "end", [[], ["7 <... fdatasync resumed>) = -1 EIO (Input/output error)"], ["7 +++ killed +++"]]
)
def test_synced_sync_that_did_not_come_to_its_end_covers_nothing(end: list[str]) -> None:
    file = after(WRITE.format(PATH, 8192), f"7 fdatasync(14<{PATH}> <unfinished ...>", *end)
    assert file.synced == 8192


def test_synced_file_that_is_known_by_the_name_it_was_made_under_is_the_journal() -> None:
    assert after(WRITE.format(STAGED, 8192), SYNC.format(STAGED)).synced == 8492


def test_synced_file_that_was_cut_back_is_as_short() -> None:
    file = after(WRITE.format(PATH, 8192), SYNC.format(PATH), f"7 ftruncate(14<{PATH}>, 8192) = 0")
    assert (file.written, file.synced) == (8192, 8192)


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([f'7 linkat(AT_FDCWD</>, "{STAGED}", AT_FDCWD</>, "{PATH}", 0) = 0', f"7 fsync(15<{FOLDER}>) = 0"], True),
        ([f'7 link("{STAGED}", "{PATH}") = 0', f"7 fsync(15<{FOLDER}>) = 0"], True),
        ([f'7 link("{STAGED}", "{PATH}") = 0'], False),
        ([f"7 fsync(15<{FOLDER}>) = 0", f'7 link("{STAGED}", "{PATH}") = 0'], False),
    ],
)
def test_synced_new_file_is_there_once_its_folder_was_synced(lines: list[str], named: bool) -> None:  # noqa: FBT001
    assert after(WRITE.format(STAGED, 0), *lines, before={}).named is named


def test_forget_what_was_synced_stays_and_the_rest_is_not_longer_than_it_was(tmp_path: Path) -> None:
    path, content = tmp_path / "aa.journal", bytes(range(1, 201)) * 20
    left = set()
    for seed in range(40):
        path.write_bytes(content)
        file = Extent(1000, named=True)
        file.written = len(content)
        assert forget(path, file, random.Random(seed))
        assert path.read_bytes()[:1000] == content[:1000]
        left.add(path.read_bytes()[1000:])
    assert {b"", bytes(3000)} < left
    assert len(left) > 4
    assert max(map(len, left)) == 3000


def test_forget_file_whose_name_was_never_synced_goes(tmp_path: Path) -> None:
    path = tmp_path / "aa.journal"
    path.write_bytes(b"header")
    assert not forget(path, Extent(0, named=False), random.Random(1))
    assert not path.exists()


def test_forget_file_that_nobody_has_written_to_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "aa.journal"
    path.write_bytes(b"header")
    assert not forget(path, Extent(6, named=True), random.Random(1))
    assert path.read_bytes() == b"header"
