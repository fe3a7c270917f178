"""Commits of events alone, which is what running steps make: one statement, so one way to the server and back.

By that it is a transaction too, without BEGIN and COMMIT.

What a cut connection leaves behind: the events of each commit, or nothing of it. Sent again, the same statement writes
what it did not write before, or meets it.

Columns of text travel as one text each, which the server takes apart again: the driver looks at every element of an
array for what it could be, which costs more than all the rest of a step's way into the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ergon.core.commit import Commit
from ergon.storage.postgres.driver import Connection, changed
from ergon.storage.postgres.statements import statements

_SQL: Final = statements("appends.sql")
_BETWEEN: Final = "\x1f"
"""Stands between two texts of a column. JSON has no such character, and hardly any name."""
_NULL: Final = "\x1e"
"""Stands for no payload."""


def has_only_events(commit: Commit) -> bool:
    """Tell whether a commit is of the most common kind."""
    _, _, events, consumed, cancels, new, settled, returned = commit
    return bool(events) and settled is None and not (consumed or cancels or new or returned)


async def append(connection: Connection, commits: Sequence[Commit]) -> bool:
    """Write commits that have only events, in a transaction of their own; each is written whole or not at all.

    False when one was not, because its lease owns the flow no more, or when all have to go another way. Raises the
    server's error, having written nothing, when an event is there already. Either may also mean that this very call,
    repeated, wrote them before.
    """
    statement, values, count = _statement(commits)
    return statement is not None and changed(await connection.execute(statement, *values)) == count


def _statement(commits: Sequence[Commit]) -> tuple[str | None, Sequence[Any], int]:
    """The statement, its values, and how many rows it is to write."""
    flow_id, lease, events = commits[0][:3]
    if len(commits) == 1 and len(events) == 1:
        return _SQL["one"], (flow_id, *lease, *events[0]), 1
    if len(commits) == 1:
        values = _columns(events, _IS_TEXT)
        return (
            (None, (), 0)
            if values is None
            else (_SQL["of_one_flow"], (flow_id, *lease, *values), len(events))
        )
    rows = [
        (commit.flow_id, *commit.lease, *event)
        for commit in sorted(commits, key=_flow_id)
        for event in commit.events
    ]
    values = _columns(rows, _IS_TEXT_OF_MANY)
    return (None, (), 0) if values is None else (_SQL["of_many"], values, len(rows))


_IS_TEXT: Final[tuple[bool, ...]] = (False, True, True, True, True, True, False, True, False)
"""Of an event's columns: seq, kind, op, name, digest, payload, at, source, attempt."""
_IS_TEXT_OF_MANY: Final = (True, True, False, *_IS_TEXT)
"""The same after the flow, its owner and its epoch."""
_PAYLOAD: Final = -4
"""Where the payload is, the only column that may be None."""


def _columns(rows: Sequence[tuple[Any, ...]], is_text: Sequence[bool]) -> list[Any] | None:
    """Turn rows, two at least, into columns; None when a text holds what stands between texts."""
    columns: list[Any] = list(zip(*rows, strict=True))
    if _NULL in columns[_PAYLOAD]:
        return None
    if None in columns[_PAYLOAD]:
        columns[_PAYLOAD] = [_NULL if payload is None else payload for payload in columns[_PAYLOAD]]
    for place, joins in enumerate(is_text):
        if joins:
            columns[place] = text = _BETWEEN.join(columns[place])
            if text.count(_BETWEEN) >= len(rows):
                return None
    return columns


def _flow_id(commit: Commit) -> str:
    return commit.flow_id
