"""The data folder: whose it is, the room on its disk, how fast that keeps what it has acknowledged, and that nobody
else reads its secrets. What is written is one file, for half a second, and taken away again.
"""

import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.local.accounts import PUBLIC_NAME
from deploy.local.folder import MARKER, DataFolder
from gateway.cli.doctor.report import Check, fault, ok, warning

GIB = 1 << 30
FREE_BYTES_MIN = GIB
FREE_BYTES_GOOD = 10 * GIB
FREE_FILES_MIN = 2_000
FREE_FILES_GOOD = 50_000
BLOCK = bytes(4096)
MEASURE_S = 0.5
SYNCS_SLOW = 100  # a second: a disk that turns
# No device takes 4 KiB to where a power cut does not reach it in under 10 microseconds; memory does.
SYNCS_UNBELIEVABLE = 100_000
SECRETS = ("master.keys", "hash.key")
SECRET = re.compile(r"^secrets\.|\.url$")  # keys whose values nobody else may read


def ownership(path: Path) -> Check:
    """Whether `floodgate up` may use the folder."""
    if path.exists() and not path.is_dir():
        return fault("data folder", f"{path} is not a folder", "Name another one with --data.")
    if not path.exists() or (path / MARKER).exists():
        return ok("data folder", f"{path}" + ("" if path.exists() else ", made at the first start"))
    if any(entry.name != PUBLIC_NAME for entry in path.iterdir()):  # Root's public folder is not in the way of `up`.
        return fault("data folder", f"{path} is not empty, and not ours", "Name another one with --data.")
    return ok("data folder", f"{path} has no data yet")


def room(path: Path, measured: Callable[[Path], os.statvfs_result] = os.statvfs) -> list[Check]:
    """Bytes and inodes that are free for us on the disk of the folder."""
    found = measured(_existing(path))
    return [_free_bytes(found.f_bavail * found.f_frsize), _free_files(found.f_files, found.f_favail)]


def _free_bytes(free: int) -> Check:
    said = f"{free / GIB:,.1f} GiB are free"
    remedy = "Free room, or put the data elsewhere with --data."
    if free < FREE_BYTES_MIN:
        return fault("disk", said, remedy)
    return warning("disk", said, remedy) if free < FREE_BYTES_GOOD else ok("disk", said)


def _free_files(all_files: int, free: int) -> Check:
    if all_files == 0:
        return ok("inodes", "this file system does not count them")
    said = f"{free:,} are free; a cluster of PostgreSQL takes about 1,000"
    remedy = "Delete small files on this disk, or put the data elsewhere with --data."
    if free < FREE_FILES_MIN:
        return fault("inodes", said, remedy)
    return warning("inodes", said, remedy) if free < FREE_FILES_GOOD else ok("inodes", said)


def syncing(path: Path, measure: Callable[[Path], float] | None = None) -> Check:
    """How often a second the disk says that 4 KiB are kept: each commit of the ledger waits for that once."""
    try:
        rate = (measure or syncs_per_s)(_existing(path))
    except OSError as error:
        return fault("fsync", f"{error.filename or path}: {error.strerror}", "Name a folder that you may write to.")
    said = f"{rate:,.0f} a second; each commit, of up to 1,000 orders, waits for one"
    if rate < SYNCS_SLOW:
        return warning("fsync", said, "Orders wait long for the ledger: put the data on an SSD with --data.")
    if rate > SYNCS_UNBELIEVABLE:
        remedy = "Make sure that it is no memory disk, and that the host does not ignore flushes."
        return warning("fsync", f"{said}, and no disk that survives a power cut is that fast", remedy)
    return ok("fsync", said)


def syncs_per_s(folder: Path, measure_s: float = MEASURE_S) -> float:
    """Write 4 KiB and fdatasync, again and again. Raises OSError."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(BLOCK)
        os.fsync(file.fileno())
        count, started = 0, time.monotonic()
        while (passed_s := time.monotonic() - started) < measure_s:
            file.seek(0)
            file.write(BLOCK)
            os.fdatasync(file.fileno())
            count += 1
    return count / passed_s


def token(path: Path) -> Check:
    """The token file of the local client."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return ok("token", "there is none yet; `floodgate up` makes it")
    if mode & 0o077:
        return fault("token", f"{path} has mode {mode:04o}: others read it", f"Run `chmod 600 {path}`.")
    return ok("token", f"{path}, mode {mode:04o}")


def secrets(folder: DataFolder, names: tuple[str, ...] = SECRETS) -> Check:
    """The secrets of a local system, without which its data cannot be read."""
    if not (folder.postgres / "cluster").exists():
        return ok("secrets", "there are none yet; `floodgate up` makes them")
    for path in (folder.secrets / name for name in names):
        try:
            path.read_bytes()
        except OSError as error:
            return fault(
                "secrets", f"{path}: {error.strerror}", "Put it back from a backup: the data cannot be read without it."
            )
    mode = stat.S_IMODE(folder.secrets.stat().st_mode)
    if mode & 0o077:
        return fault("secrets", f"{folder.secrets} has mode {mode:04o}", f"Run `chmod 700 {folder.secrets}`.")
    return ok("secrets", f"{folder.secrets}, mode {mode:04o}")


def settings_file(path: Path | None, origins: Mapping[str, str]) -> Check:
    """A file that holds secrets, or passwords in addresses, is for its owner alone; `origins` by key."""
    if path is None or not path.exists():
        return ok("settings file", "none")
    mode = stat.S_IMODE(path.stat().st_mode)
    held = [key for key, origin in origins.items() if origin.startswith(str(path)) and SECRET.search(key)]
    if held and mode & 0o077:
        said = f"{path} holds {', '.join(held)}, and has mode {mode:04o}"
        remedy = f"Run `chmod 600 {path}`, or give each by a file of its own, as in FLOODGATE_SECRETS__HASH_KEY_FILE."
        return warning("settings file", said, remedy)
    return ok("settings file", f"{path}, mode {mode:04o}")


def _existing(path: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
