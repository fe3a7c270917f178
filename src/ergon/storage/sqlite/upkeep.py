"""What the writer does beside writing: keep the WAL short.

Checkpoints happen here and nowhere else, and only as FULL or TRUNCATE: these hold the write lock throughout, which
keeps clear of the WAL-reset bug (see `connection.py`). SQLite makes a PASSIVE one of them when it does not get that
lock in time. So the lock is won first, at the turnstile, and let go for the checkpoint while those in line wait; who
does not win it makes none. What is left is somebody who walks around the turnstile in that moment and then writes
for half a second. Checkpoints wait for readers no longer than that either, because writers wait with them.

FULL leaves the WAL file as long as it was and lets the next writer overwrite it, which is much faster than growing a
file: measured, a lone commit takes half the time. So the WAL is kept short, which also makes each checkpoint short, and
TRUNCATE gives space back only after large transactions, and when closing.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Final

from ergon.storage.sqlite.errors import FAILURES
from ergon.storage.sqlite.turnstile import Turnstile

WAL_PAGES_MAX: Final = 1000
"""A checkpoint is due at about this many pages: 4 MB."""
_PAGE_BYTES: Final = 4096
_WAL_BYTES_MAX: Final = 4 * WAL_PAGES_MAX * _PAGE_BYTES
"""A longer file is cut when the log is idle."""
_PAGES_A_CHANGE: Final = 3
"""What a row costs that is committed by itself; many at once share their pages."""
_WAIT_SECONDS: Final = 0.5
_IDLE_SECONDS: Final = 10.0
_SIZE_EVERY_SECONDS: Final = 0.05


class Upkeep:
    """Lives on the writer's thread."""

    def __init__(self, connection: sqlite3.Connection, wal: Path | None, turnstile: Turnstile) -> None:
        self._connection, self._turnstile = connection, turnstile
        self._wal = wal
        self._changes_max = WAL_PAGES_MAX // _PAGES_A_CHANGE
        self._count_anew()
        self._size_seen = _WAL_BYTES_MAX
        self._size_due_at = 0.0
        self._busy_until = 0.0
        self._is_tidy = False
        self._wrote_at = time.monotonic()

    def use(self, connection: sqlite3.Connection) -> None:
        """Go on with a reopened connection."""
        if connection is not self._connection:
            self._connection = connection
            self._count_anew()

    def after_batch(self) -> None:
        """Checkpoint when it is due."""
        if self._wal is None:
            return
        now = time.monotonic()
        self._wrote_at = now
        self._is_tidy = False
        changes = self._connection.total_changes - self._changes_seen
        if now >= self._busy_until and (self._is_full(changes) or self._has_grown(now)):
            self._checkpoint_full(max(changes, 1))

    def when_idle(self) -> None:
        """Bring everything into the database file when nobody wrote for a while."""
        if not self._is_tidy and self._wal is not None and time.monotonic() - self._wrote_at > _IDLE_SECONDS:
            self._is_tidy = True
            self._tidy()

    def truncate(self, wait_seconds: float) -> None:
        """Bring everything into the database file and empty the WAL, if no reader is in the way."""
        if self._wal is not None and self._checkpoint("TRUNCATE", wait_seconds) is not None:
            self._count_anew()

    def _tidy(self) -> None:
        """Bring everything into the database file while nobody waits for a write."""
        if (self._wal_bytes() or 0) > _WAL_BYTES_MAX:
            self.truncate(_WAIT_SECONDS)
        else:
            self._checkpoint_full(max(self._connection.total_changes - self._changes_seen, 1))

    def _count_anew(self) -> None:
        self._changes_seen = self._connection.total_changes
        self._changes_young = 0
        """Up to so many changes the WAL cannot be full, as its file is too short."""

    def _is_full(self, changes: int) -> bool:
        """Tell whether so many changes may have filled the WAL, by what earlier ones came to.

        How much it holds shows nowhere, but it is no more than its file has room for: a young file is not full.
        """
        if changes < max(self._changes_max, self._changes_young):
            return False
        size = self._wal_bytes()
        left = WAL_PAGES_MAX - size // _PAGE_BYTES if size is not None else 0
        self._changes_young = changes + max(left // _PAGES_A_CHANGE, 0)
        return left <= 0

    def _has_grown(self, now: float) -> bool:
        """Tell whether the WAL file is longer than it should be: large values fill it with few changes."""
        if now < self._size_due_at:
            return False
        self._size_due_at = now + _SIZE_EVERY_SECONDS
        size = self._wal_bytes() or 0
        if size <= self._size_seen:
            return False
        self._size_seen = size + size // 4
        return True

    def _wal_bytes(self) -> int | None:
        """The length of the file; None when that cannot be known."""
        try:
            return self._wal.stat().st_size if self._wal is not None else None
        except OSError:
            return None

    def _checkpoint_full(self, changes: int) -> None:
        pages = self._checkpoint("FULL", _WAIT_SECONDS)
        if pages is None:
            # A reader stood in the way and every writer waited for it: let some time pass.
            self._busy_until = time.monotonic() + 2 * _WAIT_SECONDS
            return
        self._count_anew()
        if pages > 0:  # learn how many changes make a full WAL
            fitting = changes * WAL_PAGES_MAX // pages
            self._changes_max = min(max(fitting, self._changes_max // 4, 256), self._changes_max * 4, 100_000)

    def _checkpoint(self, mode: str, wait_seconds: float) -> int | None:
        """Run a checkpoint that holds the write lock; return the WAL's pages, None when somebody was in the way.

        Raises one of `FAILURES` when it leaves a transaction open, which the caller has to end.
        """
        assert mode in ("FULL", "TRUNCATE"), "other modes do not hold the write lock"
        try:
            with self._turnstile.holding(self._connection, patience_seconds=wait_seconds):
                return self._checkpoint_now(mode, wait_seconds)
        except FAILURES:
            if self._connection.in_transaction:
                raise  # the lock was won and could not be let go
            return None  # whoever holds the lock does so for long

    def _checkpoint_now(self, mode: str, wait_seconds: float) -> int | None:
        try:
            self._connection.execute(f"PRAGMA busy_timeout={int(wait_seconds * 1000):d}")
            try:
                busy, pages, _ = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            finally:
                self._connection.execute("PRAGMA busy_timeout=0")
        except FAILURES:
            return None  # no room, no memory, or locked: the WAL keeps everything until a later one succeeds
        return None if busy else int(pages)
