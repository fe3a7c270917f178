"""Bring a file to this version's schema, or say why it is not ours to touch.

`schema/NNNN_name.sql` are applied in order, each in its own transaction under the write lock, once. They are never
edited after a release. `PRAGMA user_version` is the number of the last one. Code of one version works on the schema
of the next (`meta.compatible_from` says whether it may), so that workers can be replaced one by one.

A migration that older code must not live to see raises `compatible_from`. Whoever has the log open is then stopped in
the same transaction, and the usual write pays nothing for it: every worker is declared dead, so that no commit of
theirs matches, and a trigger refuses the writers of older code in table `landed`, where every other transaction ends.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final
from uuid import uuid4

from ergon.core.release import VERSION
from ergon.errors import LogDamaged, LogRefused, LogTooNew
from ergon.storage.sqlite.errors import TOO_OLD
from ergon.storage.sqlite.turnstile import Turnstile

APPLICATION_ID: Final = 0x4572676E
"""`Ergn`, in the header of each file of ours: how `file` and we tell it from another program's database."""


@cache
def migrations() -> tuple[tuple[int, Path], ...]:
    """Return every migration as its number and file, in order."""
    folder = Path(__file__).with_name("schema")
    files = sorted(file for file in folder.iterdir() if file.suffix == ".sql")
    return tuple((int(file.name[:4]), file) for file in files)


def made_by() -> str:
    """Return what a log says of who made it."""
    return f"ergon {VERSION}, SQLite {sqlite3.sqlite_version}"


def made_at(now: float) -> str:
    """Return what a log says of when it was made: seconds since 1970-01-01 UTC, of one length in our time."""
    return f"{now:.9f}".ljust(20, "0")


def inspect(connection: sqlite3.Connection, where: str) -> int:
    """Return the file's schema version; 0 when it is new. Changes nothing.

    All of it is read from one snapshot: between two statements another process may make the file a log.
    """
    ours = not connection.in_transaction
    if ours:
        connection.execute("BEGIN")
    try:
        return _inspect_snapshot(connection, where)
    finally:
        if ours and connection.in_transaction:  # an error may have ended it
            connection.execute("ROLLBACK")


def migrate(connection: sqlite3.Connection, turnstile: Turnstile, where: str, now: float) -> bool:
    """Apply what is missing; True when this made the log. Several processes may try at once; the write lock decides."""
    found = inspect(connection, where)
    if found >= migrations()[-1][0]:
        return False
    made = False
    for number, file in migrations():
        turnstile.begin(connection)
        try:
            if inspect(connection, where) < number:
                _apply(connection, number, file.read_text(encoding="utf-8"), now)
                made |= number == 1
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return made


def generation(connection: sqlite3.Connection, where: str) -> str:
    """Return the id made with the file: a file with another id is another log."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
    if row is None:
        raise LogDamaged(f"log {where} has lost its generation id; restore a backup")
    return str(row[0])


def split(script: str) -> Iterator[str]:
    """Yield the statements of a script; `executescript` would commit the transaction around it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if ";" in line and sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _inspect_snapshot(connection: sqlite3.Connection, where: str) -> int:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if application != APPLICATION_ID:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if application or version or tables:
            raise LogRefused(f"log {where} is another program's database; give Ergon a file of its own")
        return 0
    newest = migrations()[-1][0]
    if version > newest:
        _check_compatible(connection, where, version, newest)
    return version


def _apply(connection: sqlite3.Connection, number: int, text: str, now: float) -> None:
    strict = sqlite3.sqlite_version_info >= (3, 37)
    before = compatible_from(connection) if number > 1 else 1
    for statement in split(text):
        plain = statement.replace(") STRICT, WITHOUT ROWID", ") WITHOUT ROWID").replace(") STRICT", ")")
        connection.execute(statement if strict else plain)
    if number == 1:
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.executemany(
            "INSERT INTO meta (key, value) VALUES (?, ?)",
            [
                ("generation", uuid4().hex),
                ("created_by", made_by()),
                ("created_at", made_at(now)),
                ("compatible_from", "1"),
                ("epochs_from", "0"),
            ],
        )
    elif compatible_from(connection) > before:
        _stop_older(connection, compatible_from(connection), now)
    connection.execute(f"PRAGMA user_version={number:d}")


def _stop_older(connection: sqlite3.Connection, oldest: int, now: float) -> None:
    connection.execute("UPDATE workers SET state = 'dead' WHERE state IN ('alive', 'draining')")
    connection.execute(
        "UPDATE flows SET status = 'pending', owner = NULL, ready_at = ?, claimed_seq = NULL WHERE owner IS NOT NULL",
        (now,),
    )
    connection.execute("DROP TRIGGER IF EXISTS landed_for")
    connection.execute(
        f"CREATE TRIGGER landed_for BEFORE INSERT ON landed WHEN NEW.writer < '{oldest:04d}' "
        f"BEGIN SELECT RAISE(ABORT, '{TOO_OLD}'); END"
    )


def compatible_from(connection: sqlite3.Connection) -> int:
    """Return the oldest schema version whose code may use the file; 0 where it does not say."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'compatible_from'").fetchone()
    return int(row[0]) if row is not None else 0


def new_writer() -> str:
    """A name in table `landed`: it begins with the schema that this code knows."""
    return f"{migrations()[-1][0]:04d}-{uuid4().hex}"


def _check_compatible(connection: sqlite3.Connection, where: str, version: int, newest: int) -> None:
    if version != newest + 1 or not 0 < compatible_from(connection) <= newest:
        raise LogTooNew(
            f"log {where} has schema version {version}, this Ergon knows up to {newest}; upgrade this process"
        )
