"""Where a log's file may live, decided before SQLite touches it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from ergon.errors import LogDamaged, LogRefused

_MOUNTS: Final = Path("/proc/self/mountinfo")
_NETWORK: Final = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "gfs2",
        "ocfs2",
        "ncpfs",
        "coda",
        "beegfs",
        "gpfs",
        "orangefs",
        "virtiofs",
    ]
)


class Place(NamedTuple):
    """Where a log's file is, and what stands beside the file itself, by whatever link one came to it."""

    path: Path
    """As it was given."""
    file: Path
    """The same without links."""
    wal: Path
    """Where SQLite keeps the write-ahead log."""
    turn: Path
    """Where those who write queue: see `turnstile.py`."""
    filesystem: str = ""
    """The type of the file system; empty where the system does not tell."""

    @property
    def folder(self) -> Path:
        """Where all of these are."""
        return self.file.parent


def place_of(path: Path) -> Place:
    """Follow the links, once; the file need not exist."""
    real = os.path.realpath(path)
    return Place(path, Path(real), Path(f"{real}-wal"), Path(f"{real}-turn"))


def filesystem_of(path: Path, mounts: Path = _MOUNTS) -> str:
    """Return the type of the file system that `path`, which has no links, is on; nothing where nobody tells."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    real = str(path)
    best, found = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        if len(fields) < 5 or not right:
            continue
        mount = fields[4]
        if (
            "\\" in mount
        ):  # a blank in a path; loading `re` for every log would cost more than all the rest here
            mount = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), mount)
        inside = mount in ("/", real) or real.startswith(mount + "/")
        # The last line wins among equals: a later mount hides an earlier one.
        if inside and len(mount) >= len(best):
            best, found = mount, right.split(" ", 1)[0]
    return found


def is_network(filesystem: str) -> bool:
    """Tell whether several machines may share a file system of this type."""
    return filesystem in _NETWORK or (filesystem.startswith("fuse.") and filesystem != "fuse.fuse-overlayfs")


def check(path: Path, *, allow_network_filesystem: bool) -> Place:
    """Return the place; raise `LogRefused` when a log at `path` could not be written, or could not be safe."""
    place = place_of(path)
    folder = place.folder
    if path.is_dir():
        raise LogRefused(f"log {path} is a directory; name a file in it, such as {path / 'ergon.db'}")
    if not folder.is_dir():
        raise LogRefused(f"log {path}: the directory {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LogRefused(
            f"log {path}: the directory {folder} is read-only; SQLite keeps files beside the database"
        )
    _check_not_half_gone(place)
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise LogRefused(f"log {path} is read-only for this process; give it read and write rights")
    filesystem = filesystem_of(folder)
    if is_network(filesystem) and not allow_network_filesystem:
        raise LogRefused(
            f"log {path} is on a network file system ({filesystem}), where SQLite's locks and shared memory do not "
            "hold and committed work can be lost; use a local disk, or PostgreSQL or Redis for several machines. "
            "When only one machine ever opens it, pass allow_network_filesystem=True"
        )
    return place._replace(filesystem=filesystem)


def _check_not_half_gone(place: Place) -> None:
    path, wal = place.path, place.wal
    # Asked again at last: another process may have made both in between.
    if not path.exists() and wal.exists() and not path.exists():
        raise LogRefused(
            f"log {path} is gone, but {wal.name}, which holds its last commits, is still there: the file was deleted "
            "or moved, perhaps under a process that still has it open. Put it back; or end that process and delete "
            f"{wal.name} and {path.name}-shm as well, to start a new log"
        )
    check_not_emptied(place)


def check_not_emptied(place: Place) -> None:
    """Raise `LogRefused` for an empty file beside a write-ahead log that is not: SQLite would delete that at once."""
    path, wal = place.path, place.wal
    # Asked again at last: another process may have begun both in between.
    if _length(path) == 0 and _length(wal) and _length(path) == 0:
        raise LogRefused(
            f"log {path} is empty, but {wal.name}, which holds its last commits, is not: the file was emptied, or its "
            f"disk lost it. Restore a backup of both; or delete {path.name}, {wal.name} and {path.name}-shm, to start "
            "a new log"
        )


def _length(path: Path) -> int | None:
    """In bytes; None where there is no such file, or nobody can tell."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - for each new log
    except OSError:
        return None


class Anchor:
    """Where an open file and its write-ahead log were: what is written to one that was deleted or moved, nobody finds.

    While a connection is open SQLite neither deletes a write-ahead log nor puts another in its place.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._wal = path, place_of(path).wal
        self._identity, self._wal_identity = _identity(path), _identity(self._wal)

    def check(self) -> None:
        """Raise `LogDamaged` when either was deleted or moved, `LogRefused` when another file is in the log's place."""
        now = _identity(self._path)
        if now != self._identity:
            raise deleted(self._path) if now is None else replaced(self._path)
        now = _identity(self._wal)
        if now != self._wal_identity:
            if self._wal_identity is not None:
                raise without_wal(self._path, self._wal)
            self._wal_identity = now  # SQLite makes it when it first needs it


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file it is; None when there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - asked for each commit
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def missing(path: Path) -> LogRefused:
    """The error for a file that is not there and is not to be made."""
    return LogRefused(
        f"there is no log at {path}; name another file, or let a program that runs flows make one"
    )


def deleted(path: Path) -> LogDamaged:
    """The error for a file that was deleted or moved while it was open."""
    return LogDamaged(
        f"log {path} was deleted or moved while it was open, and no new one is made in its place; put it back, or "
        "restore a backup and start this process again"
    )


def without_wal(path: Path, wal: Path) -> LogDamaged:
    """The error for a log whose write-ahead log was deleted, moved or replaced while it was open."""
    return LogDamaged(
        f"log {path}: {wal.name}, which holds its last commits, was deleted, moved or replaced while the log was open; "
        "nothing more is written. Put it back; or end every process that has the log open, without killing it, before "
        "you start another: closing the log brings into it what they had written"
    )


def replaced(path: Path) -> LogRefused:
    """The error for a file that another has taken the place of."""
    return LogRefused(
        f"log {path} was replaced by another while it was open; nothing is written to that one. Put the file "
        "back, or start this process again to go on with the new one"
    )
