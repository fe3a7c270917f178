"""Make a new log in one step: the image of an empty one is written to a file without a name, then linked to its place.

So a new log is there whole or not at all, in less time than its tables take to be made one by one. The image is what
the migrations make, in WAL mode, with three values left to fill in (`tests/storage/sqlite/make_blank.py` makes it).
Where that cannot be done, the migrations make the log: no unnamed files (`O_TMPFILE`, of Linux), an SQLite that does
not know the image's STRICT tables, something in the place already.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final
from uuid import uuid4

from ergon.storage.sqlite.migrations import made_by

IMAGE: Final = Path(__file__).with_name("schema") / "blank.image"
GENERATION: Final = b"<generation>".ljust(32, b".")
CREATED_BY: Final = b"<created_by>".ljust(48, b".")
CREATED_AT: Final = b"<created_at>".ljust(20, b".")
"""What the image holds in table `meta` instead of the values of one log; each as long as its value."""

_STRICT_SINCE: Final = (3, 37)
_UNNAMED: Final = getattr(os, "O_TMPFILE", 0)


def make(file: Path, now: float) -> bool:
    """Make the log `file`, a path without links; False where that is left to the migrations."""
    if not _UNNAMED or sqlite3.sqlite_version_info < _STRICT_SINCE:
        return False
    # A journal without its database would be rolled back into whatever takes that one's place.
    if os.path.lexists(file) or os.path.lexists(f"{file}-journal"):
        return False
    try:
        _link(_filled_in(now), file)
    except OSError:  # no room, no such files here, or another process was first: who opens the file finds out
        return False
    return True


def _filled_in(now: float) -> memoryview:
    image = bytearray(IMAGE.read_bytes())
    for blank, value in (
        (GENERATION, uuid4().hex),
        (CREATED_BY, made_by()),
        (CREATED_AT, f"{now:0{len(CREATED_AT)}.6f}"),
    ):
        at = image.index(blank)
        image[at : at + len(blank)] = value.encode().ljust(len(blank))
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
        # With a descriptor of a folder, which is not used, link() is linkat(), which follows the link in /proc.
        os.link(f"/proc/self/fd/{unnamed.fileno()}", file, src_dir_fd=unnamed.fileno(), follow_symlinks=True)
