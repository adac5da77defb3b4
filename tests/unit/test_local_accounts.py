"""Where files must lie so that an unprivileged account reaches them."""

import os
import stat
from pathlib import Path

import pytest

from deploy.local.accounts import Account, can_enter, reachable_directory, reachable_program, remove_directory
from deploy.local.failure import StackError
from deploy.local.programs import Installation

ME = Account("me", os.geteuid(), os.getegid())
STRANGER = Account("stranger", 4242, 4242)


@pytest.fixture
def installed(tmp_path: Path) -> Installation:
    """A program with a library beside it, readable by its owner alone."""
    root = tmp_path / "installed"
    for name, mode in (
        ("program/bin/postgres", 0o700),
        ("program/share/postgres.bki", 0o600),
        ("libs/libpq.so", 0o600),
    ):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("")
        (root / name).chmod(mode)
    return Installation(root, ("program", "libs"), "18")


def test_can_enter_closed_folder_is_refused_to_strangers(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    assert not can_enter(tmp_path / "closed", STRANGER)


def test_can_enter_own_closed_folder_is_allowed(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    # The folders above belong to the one who runs the test.
    assert can_enter(closed, ME)


def test_program_without_another_account_stays_where_it_is(installed: Installation, tmp_path: Path) -> None:
    assert reachable_program(installed, None, tmp_path / "public") == installed.root
    assert not (tmp_path / "public").exists()


def test_program_that_cannot_be_reached_is_copied_readable(installed: Installation, tmp_path: Path) -> None:
    installed.root.chmod(0o700)
    public = tmp_path / "public"
    with pytest.raises(StackError, match="cannot enter"):
        # The public folder of this test lies below a closed one itself; the copy is made all the same.
        reachable_program(installed, STRANGER, public)
    copy = public / "postgresql-18"
    modes = {
        name: stat.S_IMODE((copy / name).stat().st_mode) for name in ("program/bin/postgres", "libs/libpq.so", "libs")
    }
    assert modes == {"program/bin/postgres": 0o755, "libs/libpq.so": 0o644, "libs": 0o755}
    assert [entry.name for entry in public.iterdir()] == ["postgresql-18"]


def test_program_that_is_copied_keeps_the_modes_of_its_source(installed: Installation, tmp_path: Path) -> None:
    installed.root.chmod(0o700)
    with pytest.raises(StackError):
        reachable_program(installed, STRANGER, tmp_path / "public")
    assert stat.S_IMODE(installed.root.stat().st_mode) == 0o700
    assert stat.S_IMODE((installed.root / "libs" / "libpq.so").stat().st_mode) == 0o600


def test_directory_without_another_account_is_made_private(tmp_path: Path) -> None:
    made = reachable_directory(tmp_path / "postgres", None, tmp_path / "public")
    assert made == tmp_path / "postgres"
    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_directory_that_cannot_be_reached_becomes_a_link(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    directory, public = tmp_path / "postgres", tmp_path / "public"
    with pytest.raises((StackError, PermissionError)):
        reachable_directory(directory, STRANGER, public)
    assert directory.is_symlink()
    assert directory.readlink().parent == public / "data"


def test_remove_deletes_the_folder_behind_a_link_of_ours(tmp_path: Path) -> None:
    target = tmp_path / "public" / "data" / "0123"
    target.mkdir(parents=True)
    (tmp_path / "postgres").symlink_to(target)
    remove_directory(tmp_path / "postgres", tmp_path / "public")
    assert not target.exists()
    assert not (tmp_path / "postgres").is_symlink()


def test_remove_leaves_the_folder_behind_a_foreign_link(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / "postgres").symlink_to(target)
    remove_directory(tmp_path / "postgres", tmp_path / "public")
    assert target.exists()
