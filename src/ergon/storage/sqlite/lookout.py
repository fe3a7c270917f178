"""How the writer's thread rests: until it is rung for, or another process has committed.

SQLite tells by `PRAGMA data_version` that another connection committed; somebody has to ask. Right after a write of
anybody's the lookout asks often, less and less so; after a quiet fifth of a second it only waits for the system to
say that the write-ahead log was written to (`watch.py`), and asks twice a second in case that went unsaid. A
transaction is written before it can be read, by one flush of the disk at most, hence the fifth of a second.
Without a watch it looks every 15 ms, for ever.
"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from ergon.storage.sqlite.errors import FAILURES
from ergon.storage.sqlite.watch import FileWatch, watch_file

_RECENT_SECONDS: Final = 0.2
_LOOK_SECONDS: Final = (0.002, 0.015)
"""From the soonest look after a write to the latest, which is also how often to look without a watch."""
_LOOK_BUSY_SECONDS: Final = 0.005
_LOOK_WATCHED_SECONDS: Final = 0.5
_LOOK_CLOSED_SECONDS: Final = 1.0
_REST_SECONDS: Final = 1.0
"""The longest rest: then the writer sees whether there is an event loop still that it could write for."""
_MISSES_MAX: Final = 3
"""Commits that the watch did not tell of, until it is not believed any more: some file systems have no watches."""


class Lookout:
    """Lives on the writer's thread; only `ring` may be called from others."""

    def __init__(self, wal: Path | None) -> None:
        self._wal = wal
        self._rings: SimpleQueue[None] = SimpleQueue()
        self._watch: FileWatch | None = None
        self._watching = False
        self._may_watch = True
        self._misses = 0
        self._is_ours = False
        """True while what the watch noticed may be our own writing."""
        self._connection: sqlite3.Connection | None = None
        self._version = 0
        self._looked_at = self._changed_at = time.monotonic()

    def attend(self, connection: sqlite3.Connection) -> None:
        """Go on with this connection, which may have been reopened. Raises `sqlite3.Error` where it is closed."""
        if connection is not self._connection and self._wal is not None:
            self._version = int(connection.execute("PRAGMA data_version").fetchone()[0])
            self._drop_watch()  # the file beside it may be another one now
            self._connection = connection

    def ring(self) -> None:
        """Let the thread go on, now or when it next rests."""
        self._rings.put(None)
        watch = self._watch
        if self._watching and watch is not None:
            watch.wake()

    def after_batch(self, *, wrote: bool) -> bool:
        """Note our own commit, if it wrote anything; tell whether another process committed since the last look."""
        if self._wal is None:
            return False
        now = time.monotonic()
        if wrote:
            self._changed_at, self._is_ours = now, True
        return now - self._looked_at >= _LOOK_BUSY_SECONDS and self._look(now)

    def rest(self) -> bool:
        """Return when rung, or when it is time to look after something: True when another process committed."""
        if self._wal is None:
            self._is_rung(_REST_SECONDS)
            return False
        now = time.monotonic()
        recent = now - self._changed_at < _RECENT_SECONDS
        if not recent and self._has_watch():
            return self._rest_watching()
        soonest, latest = _LOOK_SECONDS
        every = min(max(now - self._changed_at, soonest), latest)
        if self._is_rung(every):
            return False
        if self._is_ours and self._watch is not None:
            self._watch.forget()
            self._is_ours = False
        return self._look(time.monotonic())

    def close(self) -> None:
        """Free what the system lends."""
        self._drop_watch()
        self._may_watch = False

    def _rest_watching(self) -> bool:
        assert self._watch is not None
        self._watching = True  # before looking at the rings: whoever rings sees it or is seen
        try:
            asked = not self._is_rung(0)
            touched = asked and self._watch.wait(_LOOK_WATCHED_SECONDS)
        finally:
            self._watching = False
        now = time.monotonic()
        if touched:
            self._changed_at = now  # it may be a transaction that has not landed yet
        if self._is_rung(0):
            return False
        changed = self._look(now)
        if changed and asked and not touched:
            self._misses += 1
        return changed

    def _is_rung(self, seconds: float) -> bool:
        try:
            self._rings.get(timeout=seconds) if seconds else self._rings.get_nowait()
        except Empty:
            return False
        return True

    def _has_watch(self) -> bool:
        if self._misses >= _MISSES_MAX:
            self._drop_watch()
            self._may_watch = False
        if self._watch is None and self._may_watch and self._wal is not None:
            self._watch = watch_file(self._wal)
            self._may_watch = self._watch is not None
            self._changed_at = time.monotonic()  # what was written before it began to watch shows soon
            return False
        return self._watch is not None

    def _drop_watch(self) -> None:
        watch, self._watch = self._watch, None
        self._may_watch = True
        if watch is not None:
            watch.close()

    def _look(self, now: float) -> bool:
        self._looked_at = now
        try:
            assert self._connection is not None
            version = int(self._connection.execute("PRAGMA data_version").fetchone()[0])
        except FAILURES:
            # Whatever it is, the next write will meet it and answer to somebody.
            self._is_rung(_LOOK_CLOSED_SECONDS)
            return False
        if version == self._version:
            return False
        self._version, self._changed_at = version, now
        return True
