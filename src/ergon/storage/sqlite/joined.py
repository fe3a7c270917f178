"""Read many rows that statements join to one text: at once where they are small together, page by page where not.

One text of many rows spares a wait at each row (`rows.sql` says which), but SQLite makes none longer than its limit,
1e9 bytes, and a text is in memory several times over until it is read. A history may be longer than that: each of its
rows was acknowledged, so all of them together must be read. Only a single row may have all the room there is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TypeVar

from ergon.storage.sqlite.errors import is_too_long

BYTES_MAX: Final = 64 << 20
"""In one text of more than one row. SQLite itself keeps to it, which costs small rows nothing."""
_GROWTH_MAX: Final = 64
"""A page has at most so many times the rows of the one before: the next ones may be larger. After a page that was too
long comes one of a single row, for each that is too long is 64 MiB read in vain."""

T = TypeVar("T")


@contextmanager
def bounded(connection: sqlite3.Connection) -> Iterator[None]:
    """Let no text and no value be longer than `BYTES_MAX`: reading one raises `SQLITE_TOOBIG`."""
    limit = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, BYTES_MAX)
    try:
        if limit < BYTES_MAX:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)
        yield
    finally:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit)


@contextmanager
def one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """Let several statements see the same moment."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.rollback()  # does nothing where an error has ended it


def read(
    connection: sqlite3.Connection,
    sql: str,
    decode: Callable[[str | None], list[T]],
    key: Callable[[T], int],
    *,
    after: int = 0,
    limit: int | None = None,
    **values: Any,
) -> list[T]:
    """Read the rows whose key is above `after`, in the order of their keys, at most `limit`.

    `sql` takes `:after` and `:limit` (-1: all) and returns the text of those. Raises what SQLite or `decode` raises
    when a row by itself cannot be read.
    """
    wanted = {**values, "after": after, "limit": -1 if limit is None else limit}
    try:
        with bounded(connection):
            text = connection.execute(sql, wanted).fetchone()[0]
    except sqlite3.Error as error:
        if not is_too_long(error):
            raise
    else:
        return decode(text)
    with one_moment(connection):
        return _page_by_page(connection, sql, decode, key, wanted)


def _page_by_page(
    connection: sqlite3.Connection,
    sql: str,
    decode: Callable[[str | None], list[T]],
    key: Callable[[T], int],
    wanted: dict[str, Any],
) -> list[T]:
    after, left, size = wanted["after"], wanted["limit"], 1
    found: list[T] = []
    while left != 0:
        limit = min(size, left) if left > 0 else size
        try:
            with bounded(connection) if limit > 1 else nullcontext():
                text = connection.execute(sql, {**wanted, "after": after, "limit": limit}).fetchone()[0]
        except sqlite3.Error as error:
            if limit == 1 or not is_too_long(error):
                raise
            size = 1
            continue
        page = decode(text)
        found += page
        if len(page) < limit:
            break
        after = key(page[-1])
        if left > 0:
            left -= len(page)
        # Half of what may be: rows a little larger than these must not make the next page too long.
        size = max(1, min(limit * _GROWTH_MAX, BYTES_MAX // 2 * len(page) // len(text)))
    return found
