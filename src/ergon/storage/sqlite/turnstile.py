"""Hand the write lock over fairly between processes.

SQLite's own way of waiting sleeps 1 to 100 ms between tries, so a process that commits in a loop starves all others.
Here who finds the lock taken queues at a turnstile: a file lock beside the database. Its holder is next; it raises
a flag in a page shared by all, then tries again every 0.2 ms. Who sees the flag queues too, instead of starting
another transaction. An uncontended writer only reads the flag: no system call.

The turnstile decides who goes first, never who may write: SQLite's lock does that. So whoever finds it stuck (its
holder was stopped by a signal) walks around it, and a process that dies in it frees it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ergon.storage.sqlite.errors import is_busy

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows: poll without a queue
    fcntl = None  # type: ignore[assignment]  # then `_file` stays None

_POLL_SECONDS: Final = 0.0002
_STUCK_SECONDS: Final = 0.25
"""How long one holder may stand in the turnstile before others walk around it."""


class Turnstile:
    """The way to `BEGIN IMMEDIATE` on one connection."""

    def __init__(self, *, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._file: int | None = None
        self._flag: mmap.mmap | None = None

    def open(self, path: Path) -> None:
        """Go through the turnstile in this file, which is made when there is none. Once is enough."""
        if self._file is not None or fcntl is None:
            return
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if os.fstat(self._file).st_size == 0:
                os.pwrite(self._file, b"\0", 0)
            self._flag = mmap.mmap(self._file, 1)
        except (OSError, ValueError):  # no room for even one byte: only fairness is lost
            self.close()

    def close(self) -> None:
        """Leave; the file stays for the others."""
        if self._flag is not None:
            self._flag.close()
            self._flag = None
        if self._file is not None:
            os.close(self._file)
            self._file = None

    @property
    def is_free(self) -> bool:
        """True while nobody queues."""
        return self._flag is None or not self._flag[0]

    def begin(self, connection: sqlite3.Connection) -> None:
        """Begin a write transaction, or raise SQLite's busy error when patience ends."""
        if self.is_free:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
        with self._queue(connection, time.monotonic() + self._patience_seconds):
            pass

    @contextmanager
    def holding(self, connection: sqlite3.Connection, *, patience_seconds: float) -> Iterator[None]:
        """Win the write lock, let it go, and keep the queue waiting until this is left. Raises SQLite's busy error.

        For what takes the lock by itself at once, as a checkpoint does: see `upkeep.py`.
        """
        with self._queue(connection, time.monotonic() + patience_seconds):
            connection.execute("ROLLBACK")
            yield

    @contextmanager
    def _queue(self, connection: sqlite3.Connection, give_up_at: float) -> Iterator[None]:
        """Begin a write transaction as the next in line, which this stays until it is left."""
        is_next = self._enter(give_up_at)
        try:
            while True:
                if is_next and self._flag is not None:
                    self._flag[0] = 1
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    break
                except sqlite3.OperationalError as error:
                    if not is_busy(error) or time.monotonic() >= give_up_at:
                        raise
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            if is_next:
                self._leave()

    def _enter(self, give_up_at: float) -> bool:
        if self._file is None or fcntl is None:
            return False
        until = min(time.monotonic() + _STUCK_SECONDS, give_up_at)
        while True:
            with contextlib.suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_SECONDS)

    def _leave(self) -> None:
        if self._flag is not None:
            self._flag[0] = 0
        if self._file is not None and fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
