"""A file and its lock: whoever has one of these is the only one in the world who works on the file.

The lock is flock's, which belongs to the open file. One of lockf's belongs to the process: two owners in one process
would both have it, and closing any descriptor of the file, a reader's, say, would give it away. It ends when the last
descriptor is closed, however the process ends: so an exec closes them (O_CLOEXEC), and a forked child does so first
thing. It holds between the processes of one host, on a local file system; a network's lock can be lost and not noticed.
"""

import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from weakref import WeakSet

from persistence.journal.errors import JournalError

STAGED = ".creating"  # how the name of a file ends that is not finished
STAGE_ATTEMPTS = 10
FOLDER_MODE = 0o700
FILE_MODE = 0o600


class LockedFile:
    """Held until `release`. Its methods raise OSError; `descriptor` raises JournalError after `release`."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor
        _held.add(self)

    @classmethod
    def make(cls, path: Path, content: bytes) -> "LockedFile":
        """A new file, which is locked and durable with its content before it is there under its name. Makes the folder
        too. Raises FileExistsError.
        """
        ensure_folder(path.parent)
        file = cls._stage(path)
        staged = file.path
        try:
            write_all(file.descriptor, content, 0)
            os.fsync(file.descriptor)
            path.hardlink_to(staged)  # A rename would silently take the place of a file that is there.
            staged.unlink()
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                staged.unlink(missing_ok=True)
            file.release()
            raise
        file.path = path
        return file

    @classmethod
    def try_open(cls, path: Path) -> "LockedFile | None":
        """None when somebody holds its lock, or there is no such file by the time it is ours."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        return cls._try_lock(path, descriptor)

    @classmethod
    def _stage(cls, path: Path) -> "LockedFile":
        for _ in range(STAGE_ATTEMPTS):
            staged = path.with_name(f"{path.name}.{secrets.token_hex(8)}{STAGED}")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            # Before the lock is taken it looks like one of a dead process, and may be cleared away.
            if (file := cls._try_lock(staged, os.open(staged, flags, FILE_MODE))) is not None:
                return file
        raise OSError(errno.EAGAIN, "somebody clears away what is not yet finished", str(path))

    @classmethod
    def _try_lock(cls, path: Path, descriptor: int) -> "LockedFile | None":
        file = cls(path, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it until now may have removed it, and another may have made one of that name.
            if os.path.samestat(path.lstat(), os.fstat(descriptor)):
                return file
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            file.release()
            raise
        file.release()
        return None

    @property
    def descriptor(self) -> int:
        if self._descriptor is None:
            raise JournalError(f"{self.path} has been closed")
        return self._descriptor

    @property
    def released(self) -> bool:
        return self._descriptor is None

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return os.fstat(self.descriptor).st_size

    def remove(self) -> None:
        """Unlink it, durably; it stays locked."""
        self.path.unlink(missing_ok=True)
        sync_folder(self.path.parent)

    def set_aside(self, ending: str) -> Path:
        """Keep it under another name, which ends so; it stays locked. Nothing reads it any more but a human being."""
        self.path = self.path.rename(self.path.with_name(f"{self.path.name}.{secrets.token_hex(4)}{ending}"))
        sync_folder(self.path.parent)
        return self.path

    def release(self) -> None:
        """Close the file and give up the lock. Repeated, it does nothing."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


_held: WeakSet[LockedFile] = WeakSet()


def _let_go_of_the_parents() -> None:
    """In a forked child: closing its descriptors leaves the parent its locks, keeping them would keep the files from
    every adopter when the parent is dead.
    """
    for file in list(_held):
        file.release()


os.register_at_fork(after_in_child=_let_go_of_the_parents)


def is_locked(descriptor: int) -> bool:
    """Whether somebody holds the lock of this file. There is no asking without trying: whoever tries to adopt the file
    in that instant finds it locked, and finds it free the next time.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def write_all(descriptor: int, content: bytes, at: int) -> None:
    """Write at this offset, however many calls it takes. Raises OSError, with some of it written."""
    rest = memoryview(content)
    while rest:
        count = os.pwrite(descriptor, rest, at)
        if not count:
            raise OSError(errno.EIO, "nothing could be written")
        rest, at = rest[count:], at + count


def ensure_folder(folder: Path) -> None:
    """Make the folder and those above it, durably, for its owner alone; one that is there stays as it is."""
    if not folder.is_dir():
        ensure_folder(folder.parent)
        folder.mkdir(FOLDER_MODE, exist_ok=True)
        sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make durable which names there are in it."""
    with opened(folder, os.O_RDONLY | os.O_DIRECTORY) as descriptor:
        os.fsync(descriptor)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor for the length of a block, without a lock."""
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
