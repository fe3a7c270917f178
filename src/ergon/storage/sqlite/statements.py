"""SQL as source: named statements in `.sql` files, and statements that carry many rows.

A file holds statements, each under a line `-- name: what_it_does`. No SQL is ever made from data: a bulk statement
differs from another only in how often `(?, ?)` is repeated, and what `rows.sql` names stands for a fixed query.
"""

from __future__ import annotations

import math
import sqlite3
from functools import cache
from pathlib import Path
from typing import Any, Final

ROWS_MAX: Final = 256
"""Rows in one bulk statement: enough that the cost of a statement vanishes, few enough for its parameters."""

NULL: Final = math.nan
"""Bound in place of None by statements that are run for every flow: SQLite keeps NaN as NULL. Python's sqlite3 looks
for an adapter for every None, which takes ten times as long as a number on Python 3.11, and three times later."""


@cache
def statements(file: str) -> dict[str, str]:
    """Return the statements of a file beside this one, by name."""
    return {name: with_rows(sql) for name, sql in _named(file).items()}


@cache
def with_rows(sql: str) -> str:
    """Put the queries of `rows.sql` in the place of their names."""
    for name, query in _named("rows.sql").items():
        if name in sql:
            sql = sql.replace(name, f"({query})")
    return sql


@cache
def _named(file: str) -> dict[str, str]:
    found: dict[str, str] = {}
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    for part in text.split("-- name: ")[1:]:
        name, _, sql = part.partition("\n")
        found[name.strip()] = sql.strip().rstrip(";")
    return found


class Bulk:
    """One statement over many rows, in which `{rows}` stands for the rows' placeholders.

    Many rows in one statement, because Python's sqlite3 gives up the interpreter lock at every step: with one
    statement a row, the writer thread would wait for the busy event loop once a row.
    """

    __slots__ = ("_sql", "_template", "_width")

    def __init__(self, template: str, width: int) -> None:
        self._template, self._width = template, width
        self._sql: dict[int, str] = {}

    def run(
        self,
        connection: sqlite3.Connection,
        values: list[Any],
        *,
        head: tuple[Any, ...] = (),
        tail: tuple[Any, ...] = (),
    ) -> int:
        """Run it over all rows in the flat list `values`; return how many rows it changed.

        The number of rows is rounded up to a power of two, so that few statements are ever prepared; the rows
        added are NULL throughout and must match nothing. `head` and `tail`: what stands before and behind them.
        """
        width, changed = self._width, 0
        most = ROWS_MAX * width
        for start in range(0, len(values), most):
            part = values[start : start + most]
            rows = len(part) // width
            size = 1 << (rows - 1).bit_length()
            if size != rows:
                part += [NULL] * ((size - rows) * width)
            if head:
                part[:0] = head
            part += tail
            changed += connection.execute(self.text(size), part).rowcount
        return changed

    def text(self, rows: int) -> str:
        """The statement for so many rows."""
        sql = self._sql.get(rows)
        if sql is None:
            row = "(" + ",".join("?" * self._width) + ")"
            sql = self._sql[rows] = self._template.replace("{rows}", ",".join([row] * rows))
        return sql
