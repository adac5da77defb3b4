"""Under whose name PostgreSQL runs, and where its files must lie so that this account reaches them.

PostgreSQL refuses to run as root. Started by root, it runs as `nobody` (or as the owner of an existing data folder).
Where that account cannot reach the program or the data, the program is copied once, and the data are put, below a
public folder of ours. The modes of folders that others made are never changed. Started by anybody else, all stays
where it is.
"""

import os
import pwd
import secrets
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from deploy.local.failure import StackError
from deploy.local.programs import Installation

UNPRIVILEGED = "nobody"
STATE_FOLDER = Path("/var/lib/floodgate")
PUBLIC_NAME = "public"
PUBLIC_FOLDER = STATE_FOLDER / PUBLIC_NAME


class Account(NamedTuple):
    """An account that a root process starts a server under."""

    name: str
    uid: int
    gid: int

    def subprocess_options(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def account_for(directory: Path) -> Account | None:
    """Who has to run the server whose files lie here; None: whoever runs this."""
    if os.geteuid() != 0:
        return None
    owner = directory.stat().st_uid if directory.exists() else 0
    try:
        entry = pwd.getpwuid(owner) if owner else pwd.getpwnam(UNPRIVILEGED)
    except KeyError as error:
        who = f"user id {owner}, who owns {directory}," if owner else f"`{UNPRIVILEGED}`"
        raise StackError(
            f"PostgreSQL does not run as root, and {who} is no account here: run floodgate as an ordinary user"
        ) from error
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def can_enter(path: Path, account: Account) -> bool:
    """Whether the account may go through this folder and every one above it."""
    real = Path(os.path.realpath(path))
    return all(_allows(folder, account, stat.S_IXOTH) for folder in (real, *real.parents))


def reachable_program(installed: Installation, account: Account | None, public: Path = PUBLIC_FOLDER) -> Path:
    """The root of the program, or of a copy that the account can read; concurrent callers get one copy."""
    parts = [installed.root / part for part in installed.parts]
    if account is None or all(can_enter(part, account) and _all_readable(part, account) for part in parts):
        return installed.root
    copy = public / f"postgresql-{installed.version}"
    if not copy.exists():
        _copy_whole(installed, copy)
    _check_entered(copy, account)
    return copy


def reachable_directory(directory: Path, account: Account | None, public: Path = PUBLIC_FOLDER) -> Path:
    """A private folder of the account: this one, or one in the public folder that this one is then a link to."""
    if account is None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory.resolve()
    if not directory.is_symlink() and not directory.exists() and not can_enter(directory.parent, account):
        # A name of its own, not one made from the path: folders are moved, and another may come to stand there.
        directory.symlink_to(_ensure_folder(public / "data") / secrets.token_hex(8))
    real = Path(os.path.realpath(directory))
    if not real.exists():
        real.mkdir(mode=0o700)
        os.chown(real, account.uid, account.gid)
    _check_entered(real, account)
    return real


def remove_directory(directory: Path, public: Path = PUBLIC_FOLDER) -> None:
    """Delete what `reachable_directory` made, the folder behind a link too, if it is one of ours."""
    if directory.is_symlink():
        real = Path(os.path.realpath(directory))
        if real.parent == Path(os.path.realpath(public / "data")):
            shutil.rmtree(real, ignore_errors=True)
        directory.unlink()
    elif directory.exists():
        shutil.rmtree(directory)


def _copy_whole(installed: Installation, target: Path) -> None:
    _ensure_folder(target.parent)
    staging = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    copy = staging / "copy"
    try:
        for part in installed.parts:
            shutil.copytree(installed.root / part, copy / part, symlinks=True)
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                # The source may be as closed as its folder: everybody may read the copy, and run what could be run.
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
        copy.rename(target)
    except OSError:
        # Renaming onto a folder that is there fails: somebody else has just made the same copy.
        if not target.exists():
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _ensure_folder(path: Path) -> Path:
    for folder in (*reversed(path.parents), path):
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        folder.chmod(0o711)
    return path


def _check_entered(path: Path, account: Account) -> None:
    if not can_enter(path, account):
        closed = next(folder for folder in (path, *path.parents) if not _allows(folder, account, stat.S_IXOTH))
        raise StackError(
            f"{account.name}, who has to run PostgreSQL, cannot enter {closed}:"
            " open it (chmod o+x) or name another folder with --data"
        )


def _all_readable(folder: Path, account: Account) -> bool:
    return all(
        _allows(path, account, stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0))
        for path in (folder, *folder.rglob("*"))
        if path.exists()
    )


def _allows(path: Path, account: Account, wanted: int) -> bool:
    """Whether the mode gives the account these rights, written as the rights of others."""
    found = path.stat()
    if found.st_uid == account.uid:
        wanted <<= 6
    elif found.st_gid == account.gid:
        wanted <<= 3
    return found.st_mode & wanted == wanted
