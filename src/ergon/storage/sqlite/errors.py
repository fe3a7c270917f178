"""SQLite's errors in Ergon's words, translated in this one place."""

from __future__ import annotations

import re
import sqlite3
from typing import Final

from ergon.errors import (
    EncodingError,
    LogBusy,
    LogClosed,
    LogDamaged,
    LogFull,
    LogRefused,
    LogTooNew,
    StoreError,
)

FAILURES: Final = (sqlite3.Error, MemoryError)
"""What a statement raises that SQLite could not run: out of memory (SQLITE_NOMEM) is no `sqlite3.Error` in Python."""
_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT}
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_UNREADABLE: Final = {sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CORRUPT}
_PLACE: Final = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOLFS,
}
# Growing a file fails with these when a quota or a file size limit is reached: SQLite calls only ENOSPC "full".
_NO_ROOM: Final = {
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
TOO_OLD: Final = "this Ergon is too old for the schema"
"""What the trigger says that a migration leaves for code which it cannot serve; see `migrations.py`."""
_QUOTED: Final = re.compile(r" with text '.*", re.DOTALL)
"""How Python's sqlite3 quotes a text it cannot decode: a row's content, which must not reach a message."""


def primary_code(error: sqlite3.Error | MemoryError) -> int:
    """Return the error's primary result code, 0 when it has none (misuse found by Python itself)."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether somebody else's lock is in the way."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


def is_constraint(error: sqlite3.Error) -> bool:
    """Tell whether the data, not the file, is the reason."""
    return primary_code(error) in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH)


def is_too_long(error: sqlite3.Error) -> bool:
    """Tell whether a value, or a text made of many, is longer than the connection's limit."""
    return primary_code(error) == sqlite3.SQLITE_TOOBIG


def is_unreadable(error: Exception) -> bool:
    """Tell whether what a row holds, not the file or the moment, is why it could not be read."""
    if not isinstance(error, sqlite3.Error):
        return isinstance(error, LogDamaged | UnicodeError)
    if isinstance(error, sqlite3.OperationalError) and not hasattr(error, "sqlite_errorcode"):
        return True  # Python's own: a text that is not UTF-8
    if primary_code(error) == sqlite3.SQLITE_ERROR:
        return "JSON" in str(error)  # a value JSON cannot hold; any other error of this code is a statement's
    return primary_code(error) in _UNREADABLE


def is_of_one_part(error: sqlite3.Error) -> bool:
    """Tell whether one part of a batch is the reason: its data, or a damaged row that it met."""
    if is_constraint(error):
        return True
    return is_unreadable(error) and primary_code(error) != sqlite3.SQLITE_CORRUPT


def without_content(error: Exception) -> str:
    """What an error says, less what it quotes of a row."""
    return _QUOTED.sub("", str(error))


def leaves_outcome_unknown(error: sqlite3.Error | MemoryError) -> bool:
    """Tell whether the transaction may have reached the disk although it failed.

    After a failed write or fsync the kernel may have dropped the pages and will not report it again, so the
    connection cannot be trusted: reopen it and read. Memory may run out when all is written already.
    """
    return isinstance(error, MemoryError) or primary_code(error) == sqlite3.SQLITE_IOERR


def translate(error: sqlite3.Error | MemoryError, where: str) -> StoreError | EncodingError:
    """Return what to raise instead of `error`, about the log at `where`."""
    if isinstance(error, MemoryError):
        return LogBusy(
            f"log {where}: there was not enough memory for this, nothing was written. Try again, with less at once or "
            "when there is more"
        )
    return _translate(error, where)


def _translate(error: sqlite3.Error, where: str) -> StoreError | EncodingError:
    if TOO_OLD in str(error):
        return LogTooNew(
            f"log {where} was given a newer schema while it was open, which this Ergon cannot use; upgrade this process"
        )
    code = int(getattr(error, "sqlite_errorcode", 0))
    words = without_content(error)
    primary, said = code & 0xFF, f"{words} ({getattr(error, 'sqlite_errorname', 'no code')})"
    if primary in _BUSY:
        return LogBusy(
            f"log {where}: another process kept it locked for longer than busy_timeout_seconds, nothing was written. "
            f"Try again; if it stays so, end the program that holds it, such as a database browser: {said}"
        )
    if primary == sqlite3.SQLITE_FULL or code in _NO_ROOM:
        return LogFull(
            f"log {where}: no room to write, nothing acknowledged was lost; free some space: {said}"
        )
    if primary in _DAMAGED:
        advice = "name another file, or restore" if primary == sqlite3.SQLITE_NOTADB else "restore"
        return LogDamaged(f"log {where} is not a healthy database; {advice} a backup: {said}")
    if primary in _PLACE:
        return LogRefused(f"log {where} cannot be opened for writing; check the path and its rights: {said}")
    if primary == sqlite3.SQLITE_TOOBIG:
        return EncodingError(f"a value is larger than this SQLite can keep: {said}")
    if isinstance(error, sqlite3.ProgrammingError) and not code:
        return LogClosed(f"log {where}: {words}")
    return _of_a_row(error, where, said)


def _of_a_row(error: sqlite3.Error, where: str, said: str) -> StoreError:
    if is_unreadable(error):
        return LogDamaged(f"log {where}: a row cannot be read; restore a backup, or mend the row: {said}")
    return StoreError(f"log {where}: {said}")
