"""Journals on real disks that are full or broken, and under real processes that are killed: what was acknowledged is
there, and whoever looks for it gets the lock as soon as its owner is dead.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from persistence.journal import Journal, JournalError, JournalFullError, Orphan, adopt, peek
from tests.tidy.source import ROOT

OWNER = "o-1"
KILLS = int(os.environ.get("KILLS", "50"))
WAIT_S = 20.0

# A process that owns a journal; `payload` is the same for whoever looks afterwards.
PRELUDE = """
import os, random, sys, time
from pathlib import Path
from persistence.journal import Journal, JournalError, JournalPoisonedError

def payload(sequence):
    choose = random.Random(sequence)
    return choose.randbytes(choose.choice((0, 10, 1000, 70_000)))

def say(*words):
    print(*words, flush=True)

journal = Journal.create(Path(sys.argv[1]), "o-1", "host", 1 << 30)
"""
APPEND_FOR_EVER = """
sequence, choose = 1, random.Random(int(sys.argv[2]))
while True:
    count = choose.randint(1, 5)
    journal.append([(1, payload(sequence + number)) for number in range(count)], sequence)
    sequence += count
    say(sequence - 1)
    if choose.random() < 0.1:
        say("clearing")
        journal.clear()
        say("cleared")
"""
APPEND_UNTIL_POISONED = """
for sequence in range(1, 4):
    try:
        journal.append([(1, payload(sequence))], 0)
        say("acknowledged")
    except JournalPoisonedError as error:
        say("poisoned", error)
"""
APPEND_AND_WAIT = """
journal.append([(1, payload(1))], 0)
say("ready")
time.sleep(60)
"""
FORK_AND_WAIT = """
journal.append([(1, payload(1))], 0)
child = os.fork()
if child == 0:
    try:
        journal.append([(1, b"child")], 0)
    except JournalError:
        say(os.getpid())
    time.sleep(60)
time.sleep(60)
"""
SPAWN_AND_WAIT = """
import subprocess
journal.append([(1, payload(1))], 0)
child = subprocess.Popen(["sleep", "60"], close_fds=False)
say(child.pid)
time.sleep(60)
"""


def payload(sequence: int) -> bytes:
    choose = random.Random(sequence)
    return choose.randbytes(choose.choice((0, 10, 1000, 70_000)))


def start(program: str, folder: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    command = [*prefix, sys.executable, "-c", PRELUDE + program, str(folder), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def kill(process: "subprocess.Popen[str]") -> list[str]:
    """Returns what it had still said."""
    with process:
        process.kill()
        assert process.stdout is not None
        return process.stdout.read().splitlines()


def first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def adopt_one(folder: Path) -> Orphan:
    (orphan,) = adopt(folder)
    return orphan


def found_in(folder: Path) -> dict[int, bytes]:
    orphan = adopt_one(folder)
    found, after = {}, 0
    while piece := orphan.read(after):
        found.update({record.sequence: record.payload for record in piece})
        after = piece[-1].sequence
    orphan.close(remove=True)
    return found


def acknowledged(said: list[str]) -> set[int]:
    """The sequences of what APPEND_FOR_EVER has acknowledged and not cleared."""
    first, last = 1, 0
    for word in said:
        if word == "cleared":
            first = last + 1
        elif word != "clearing":
            last = int(word)
    return set(range(first, last + 1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"only root can mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # A test that fails may have files open.


@pytest.mark.timeout(30 + 2 * KILLS)
def test_owner_killed_while_it_appends_loses_nothing_it_acknowledged(tmp_path: Path) -> None:
    for seed in range(KILLS):
        choose = random.Random(seed)
        process = start(APPEND_FOR_EVER, tmp_path, str(seed))
        said = [first_line(process) for _ in range(choose.randint(1, 40))]
        said += kill(process)
        found = found_in(tmp_path)
        expected = acknowledged(said)
        # A clear that it was killed in may have been done: then all of these had been committed.
        if found or said[-1] != "clearing":
            assert expected <= set(found)
        assert all(found[sequence] == payload(sequence) for sequence in found)
        assert list(tmp_path.iterdir()) == []


def test_owner_killed_gives_its_lock_back(tmp_path: Path) -> None:
    process = start(APPEND_AND_WAIT, tmp_path)
    try:
        assert first_line(process) == "ready"
        assert list(adopt(tmp_path)) == []
        assert [peeked.locked for peeked in peek(tmp_path)] == [True]
    finally:
        kill(process)
    assert [peeked.locked for peeked in peek(tmp_path)] == [False]
    assert found_in(tmp_path) == {1: payload(1)}


@pytest.mark.parametrize("program", [FORK_AND_WAIT, SPAWN_AND_WAIT], ids=["forked", "spawned"])
def test_child_of_a_killed_owner_does_not_keep_its_lock(tmp_path: Path, program: str) -> None:
    process = start(program, tmp_path)
    child = int(first_line(process))
    try:
        assert list(adopt(tmp_path)) == [], "the child has taken the lock from its parent"
        process.kill()
        process.wait(WAIT_S)
        assert found_in(tmp_path) == {1: payload(1)}
    finally:
        os.kill(child, signal.SIGKILL)
        kill(process)


def test_two_adopters_at_once_never_have_the_same_orphan(tmp_path: Path) -> None:
    """Each of these processes takes what it gets and says so."""
    for number in range(10):
        Journal.create(tmp_path, f"o-{number}", "host", 1 << 20).close(remove=False)
    program = """
import sys
from pathlib import Path
from persistence.journal import adopt
sys.stdin.readline()
for orphan in adopt(Path(sys.argv[1])):
    print(orphan.owner, flush=True)
    orphan.close(remove=True)
"""
    adopters = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        for _ in range(3)
    ]
    for adopter in adopters:
        assert adopter.stdin is not None
        adopter.stdin.write("go\n")
        adopter.stdin.flush()
    taken = [owner for adopter in adopters for owner in adopter.communicate(timeout=WAIT_S)[0].split()]
    assert sorted(taken) == [f"o-{number}" for number in range(10)]


def test_full_disk_takes_nothing_by_halves_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    folder = small_disk / "journal"
    journal = Journal.create(folder, OWNER, "host", 1 << 30)
    written: list[bytes] = []

    def fill() -> None:
        for sequence in range(1, 1000):
            payload = random.Random(sequence).randbytes(30_000)
            journal.append([(1, payload)] * 3, 0)
            written.extend([payload] * 3)

    with pytest.raises(JournalFullError):
        fill()
    assert written
    assert not journal.poisoned
    assert journal.path.stat().st_size == journal.size
    journal.append([(1, b"small")], 0)
    journal.close(remove=False)
    orphan = next(adopt(folder))
    found, after = [], 0
    while piece := orphan.read(after):
        found += [record.payload for record in piece]
        after = piece[-1].sequence
    assert found == [*written, b"small"]
    assert orphan.torn_bytes == 0
    orphan.close(remove=True)


def test_full_disk_refuses_a_new_journal_and_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(2 << 20))
    with pytest.raises(JournalError, match="cannot have a journal"):
        Journal.create(small_disk, OWNER, "host", 1 << 20)
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which makes a disk fail, is not installed")
def test_disk_that_fails_to_sync_poisons_and_what_was_acknowledged_is_found(tmp_path: Path) -> None:
    fail = ("strace", "-f", "-qq", "-o", os.devnull, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO:when=2")
    process = start(APPEND_UNTIL_POISONED, tmp_path, prefix=fail)
    said, _ = process.communicate(timeout=WAIT_S)
    # Only the second fdatasync fails: the third would have succeeded, and meant nothing.
    assert [line.split()[0] for line in said.splitlines()] == ["acknowledged", "poisoned", "poisoned"]
    assert "never written to again" in said.splitlines()[2]
    found = found_in(tmp_path)
    assert found[1] == payload(1)
    assert 3 not in found
