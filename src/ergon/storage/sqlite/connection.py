"""Open a connection with the settings the promises rest on, and read them back.

Every connection has `wal_autocheckpoint=0`. SQLite 3.7.0 to 3.51.2 can lose committed rows when a checkpoint that
does not hold the write lock meets a commit that restarts the WAL; the automatic checkpoint is of that kind. Only
`upkeep.py` checkpoints, only on the writer's connection, and only in the modes that take the write lock first.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from msgspec import Struct

from ergon.errors import LogRefused
from ergon.storage.sqlite import place
from ergon.storage.sqlite.errors import is_busy
from ergon.storage.sqlite.migrations import generation, inspect

Synchronous = Literal["OFF", "NORMAL", "FULL", "EXTRA"]
LEVELS: Final = {"OFF": 0, "NORMAL": 1, "FULL": 2, "EXTRA": 3}


class Settings(Struct, frozen=True, kw_only=True):
    """How a log opens its connections."""

    path: Path | None
    """None: a private database in memory."""
    synchronous: Synchronous = "FULL"
    busy_timeout_seconds: float = 30.0
    allow_network_filesystem: bool = False
    create: bool = True
    """Make a new log where there is none."""

    @property
    def where(self) -> str:
        """The log's name in messages."""
        return str(self.path) if self.path is not None else ":memory:"


def open_writer(settings: Settings) -> sqlite3.Connection:
    """Open the one connection that writes. SQLite waits for others until `leave_waiting_to_turnstile`."""
    return _open(settings, str(settings.path) if settings.path is not None else ":memory:", _look)


def reopen_writer(settings: Settings, made_as: str) -> sqlite3.Connection:
    """Open it again after an I/O error: the file whose generation is `made_as`, never another and never a new one.

    Raises `LogDamaged` when the file was deleted, `LogRefused` when another has taken its place or it was emptied.
    """
    path = settings.path
    assert path is not None, "a log in memory is never reopened"
    if not path.exists():
        raise place.deleted(path)
    place.check_not_emptied(place.place_of(path))

    def check(connection: sqlite3.Connection, where: str) -> None:
        if not inspect(connection, where) or generation(connection, where) != made_as:
            raise place.replaced(path)

    return _open(settings, f"file:{quote(str(path))}?mode=rw", check)


def leave_waiting_to_turnstile(connection: sqlite3.Connection) -> None:
    """Set the busy timeout to 0. Before, others that open the file at the same time are waited for."""
    connection.execute("PRAGMA busy_timeout=0")


def open_reader(path: Path, settings: Settings) -> sqlite3.Connection:
    """Open a connection that cannot write."""
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=ro",
        uri=True,
        timeout=settings.busy_timeout_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=128,
    )
    connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


def _look(connection: sqlite3.Connection, where: str) -> None:
    """Refuse what is not ours; and save a new file the journal of its change to WAL, three flushes of four.

    A new file holds nothing that a power cut in this moment could take. The read transaction keeps others from
    changing its mode meanwhile, else this would change it back.
    """
    connection.execute("BEGIN")
    try:
        if (
            inspect(connection, where) == 0
            and connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"
        ):
            connection.execute("PRAGMA journal_mode=MEMORY")
    finally:
        if connection.in_transaction:  # an error may have ended it
            connection.execute("ROLLBACK")


def _open(
    settings: Settings, target: str, look: Callable[[sqlite3.Connection, str], object]
) -> sqlite3.Connection:
    connection = sqlite3.connect(
        target,
        uri=target.startswith("file:"),
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    try:
        # Look before changing anything: another program's database keeps its journal mode.
        connection.execute(f"PRAGMA busy_timeout={int(settings.busy_timeout_seconds * 1000):d}")
        look(connection, settings.where)
        _settle(connection, settings)
    except BaseException:
        connection.close()
        raise
    return connection


def _settle(connection: sqlite3.Connection, settings: Settings) -> None:
    connection.execute("PRAGMA wal_autocheckpoint=0")
    if settings.path is not None:
        mode = _patiently(connection, "PRAGMA journal_mode=WAL", settings.busy_timeout_seconds)
        if mode != "wal":
            raise LogRefused(
                f"log {settings.where}: SQLite cannot use a write-ahead log here (it answered {mode!r}); the file "
                "system has no shared memory. Use a local disk"
            )
    connection.execute(f"PRAGMA synchronous={LEVELS[settings.synchronous]}")
    if sys.platform == "darwin":
        # There fsync alone leaves the data in the drive's cache.
        connection.execute("PRAGMA fullfsync=1")
        connection.execute("PRAGMA checkpoint_fullfsync=1")
    live = connection.execute("PRAGMA synchronous").fetchone()[0]
    if live != LEVELS[settings.synchronous]:
        raise LogRefused(
            f"log {settings.where}: synchronous={settings.synchronous} was asked for but SQLite reports {live}"
        )
    # Pages rarely leave the cache in the middle of a transaction, and sorting never touches a disk that may be full.
    connection.execute("PRAGMA cache_size=-16000")
    connection.execute("PRAGMA temp_store=MEMORY")


def _patiently(connection: sqlite3.Connection, pragma: str, patience_seconds: float) -> str:
    give_up_at = time.monotonic() + patience_seconds
    while True:
        try:
            return str(connection.execute(pragma).fetchone()[0])
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= give_up_at:
                raise
        time.sleep(0.005)
