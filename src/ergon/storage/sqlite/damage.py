"""Rows of `flows` and of what belongs to a flow that are not what Ergon wrote: whose they are, and how others go on.

A flaw in one row (text that is no text, an impossible status, a value of another type) is the business of its flow
alone. Whoever asks for that flow gets `LogDamaged`, which names it; lists leave it out and say so; a statement over
many rows that meets one is repeated row by row.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from ergon.errors import LogDamaged
from ergon.storage.sqlite.errors import is_unreadable, without_content
from ergon.storage.sqlite.statements import statements
from ergon.storage.sqlite.transaction import Transaction, as_json

_SQL: Final = statements("damage.sql")
logger: Final = logging.getLogger("ergon.storage")

PASS_OVER_SECONDS: Final = 60.0
"""How long claims pass over a row that cannot be written; then they see whether it was mended."""

TOLD_EVERY_SECONDS: Final = 60.0
"""How often the logger hears of the same damage."""

UNREADABLE: Final = (sqlite3.Error, LogDamaged, UnicodeError)
"""What reading a damaged row may raise, among much else: `is_unreadable` tells."""

K = TypeVar("K")
V = TypeVar("V")
_told: dict[str, float] = {}


@contextmanager
def of(flow_id: str) -> Iterator[None]:
    """Read rows of one flow; raises `LogDamaged` that names it when one cannot be read."""
    try:
        yield
    except UNREADABLE as error:
        if not is_unreadable(error):
            raise
        raise LogDamaged(
            f"flow {flow_id!r} is damaged: a row of it in table flows, events or inbox cannot be read "
            f"({without_content(error)}). Restore a backup, or mend the row; other flows are not concerned",
            flow_id=flow_id,
        ) from error


def one_by_one(keys: Iterable[K], read: Callable[[K], list[V]]) -> tuple[list[V], list[K]]:
    """Read something for each key; return what could be read, and the keys of damaged rows."""
    found: list[V] = []
    damaged: list[K] = []
    for key in keys:
        try:
            found += read(key)
        except UNREADABLE as error:
            if not is_unreadable(error):
                raise
            damaged.append(key)
    return found, damaged


def write_sound(tx: Transaction, nums: list[int], write: Callable[[str], int]) -> int:
    """Run a statement over rows of `flows`; when one of them cannot be written, over each alone.

    Returns how many rows were changed. Claims pass over the damaged ones for a while.
    """
    try:
        return write(as_json(nums))
    except sqlite3.IntegrityError:
        changed = 0
    for num in nums:
        try:
            changed += write(as_json([num]))
        except sqlite3.IntegrityError as error:
            tx.damaged[num] = tx.boot + PASS_OVER_SECONDS
            tell(f"flow {name_of(tx.connection, num)!r} is damaged and passed over: {error}")
    return changed


def pass_over(tx: Transaction, flow_ids: list[str], write: Callable[[list[str]], object]) -> None:
    """Write something to flows on behalf of another one; where a row cannot be written, to all others."""
    tries = [flow_ids]
    while tries:
        some = tries.pop()
        tx.run("SAVEPOINT relatives")
        try:
            write(some)
        except sqlite3.IntegrityError as error:
            tx.run("ROLLBACK TO relatives")
            if len(some) > 1:
                tries = [[flow_id] for flow_id in flow_ids]
            else:
                tell(f"flow {some[0]!r} is damaged and does not hear that a relative ended: {error}")
        tx.run("RELEASE relatives")


def passed_over(tx: Transaction) -> str:
    """The rows that claims pass over now, as JSON."""
    if not tx.damaged:
        return "[]"
    for num in [num for num, until in tx.damaged.items() if until <= tx.boot]:
        del tx.damaged[num]
    return as_json(tx.damaged)


def name_of(connection: sqlite3.Connection, num: int) -> str:
    """The id of a flow as well as it can be read."""
    row = connection.execute(_SQL["name_of"], {"num": num}).fetchone()
    return readable(row[0]) if row is not None else f"number {num}"


def readable(hexadecimal: str) -> str:
    """A text that SQL gave as hexadecimal, because it may not be one."""
    return bytes.fromhex(hexadecimal).decode("utf-8", errors="replace")


def tell(what: str) -> None:
    """Warn, but not of the same thing again and again."""
    now = time.monotonic()
    if now - _told.get(what, -TOLD_EVERY_SECONDS) < TOLD_EVERY_SECONDS:
        return
    if len(_told) > 1_000:
        _told.clear()
    _told[what] = now
    logger.warning("%s", what)
