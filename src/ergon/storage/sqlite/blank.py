"""Make a new log in one step: the image of an empty one is written to a file without a name, then linked to its place.

So a new log is there whole or not at all, in less time than its tables take to be made one by one. The image is what
the migrations make, in WAL mode, with three values left to fill in (`tests/storage/sqlite/make_blank.py` makes it).
Where that cannot be done safely the migrations make the log: on systems without unnamed files (`O_TMPFILE`, of Linux),
on other file systems than `FLUSHED`, beside anything that bears the log's name, with an SQLite before STRICT tables.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final
from uuid import uuid4

from ergon.storage.sqlite.migrations import made_at, made_by
from ergon.storage.sqlite.place import Place

FLUSHED: Final = frozenset(["ext4", "tmpfs", "xfs"])
"""File systems that flush a file without a name as any other. Btrfs did not before Linux 6.16: it found nothing to log
about such a file, and a power cut after the first commits left an empty one beside their write-ahead log."""
IMAGE: Final = Path(__file__).with_name("schema") / "blank.image"
GENERATION: Final = b"<generation>".ljust(32, b".")
CREATED_BY: Final = b"<created_by>".ljust(48, b".")
CREATED_AT: Final = b"<created_at>".ljust(20, b".")
"""What the image holds in table `meta` instead of the values of one log, which must not be longer."""

_STRICT_SINCE: Final = (3, 37)
_UNNAMED: Final = getattr(os, "O_TMPFILE", 0)
_BESIDE: Final = ("", "-journal", "-wal")
"""What must not be there: a journal or a write-ahead log without its database would be played into the image."""


def make(place: Place, now: float) -> bool:
    """Make the log at this place; False where that is left to the migrations."""
    if not _UNNAMED or sqlite3.sqlite_version_info < _STRICT_SINCE or place.filesystem not in FLUSHED:
        return False
    if any(os.path.lexists(f"{place.file}{end}") for end in _BESIDE):
        return False
    image = _filled_in({GENERATION: uuid4().hex, CREATED_BY: made_by(), CREATED_AT: made_at(now)})
    if image is None:
        return False
    try:
        _link(image, place.file)
    except OSError:  # no room, no such files here, or another process was first: who opens the file finds out
        return False
    return True


def _filled_in(values: dict[bytes, str]) -> memoryview | None:
    """The image of one log; None when a value is too long, or the package has come without it."""
    try:
        image = bytearray(IMAGE.read_bytes())
    except OSError:
        return None
    for blank, value in values.items():
        text = value.encode().ljust(len(blank))
        if len(text) > len(blank):
            return None
        at = image.index(blank)
        image[at : at + len(blank)] = text
    return memoryview(image)


def _link(image: memoryview, file: Path) -> None:
    """Flush the file before it has a name: no power cut leaves a part of it under one.

    The folder is not flushed here. SQLite does that when a connection flushes its write-ahead log for the first time,
    so before anything in the log is acknowledged.
    """
    with os.fdopen(os.open(file.parent, _UNNAMED | os.O_WRONLY | os.O_CLOEXEC, 0o644), "wb", 0) as unnamed:
        while image:
            image = image[unnamed.write(image) :]
        os.fdatasync(unnamed.fileno())
        # Given a descriptor, any at all, Python calls linkat(), which follows the link in /proc; link() does not.
        os.link(f"/proc/self/fd/{unnamed.fileno()}", file, src_dir_fd=unnamed.fileno(), follow_symlinks=True)
