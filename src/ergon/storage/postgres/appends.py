"""Commits of events alone, which is what running steps make: one statement, so one way to the server and back.

By that it is a transaction too, without BEGIN and COMMIT.

What a cut connection leaves behind: the events of each commit, or nothing of it. Sent again, the same statement writes
what it did not write before, or meets it.

Columns of text travel as one text each: see `texts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ergon.core.commit import Commit
from ergon.storage.postgres.driver import Connection, changed
from ergon.storage.postgres.packs import pack
from ergon.storage.postgres.statements import statements
from ergon.storage.postgres.texts import BETWEEN, NULL

_SQL: Final = statements("appends.sql")


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
    if len(commits) > 1:
        rows = [
            (commit.flow_id, *commit.lease, *event)
            for commit in sorted(commits, key=_flow_id)
            for event in commit.events
        ]
        many = _joined(list(zip(*rows, strict=True)), _TEXTS_OF_MANY, _PAYLOAD_OF_MANY)
        return (None, (), 0) if many is None else (_SQL["of_many"], many, len(rows))
    flow_id, lease, events = commits[0][:3]
    if len(events) == 1:
        return _SQL["one"], (flow_id, *lease, *events[0]), 1
    packed = pack(events)
    if packed is not None:
        return _SQL["pack"], (flow_id, *lease, *packed), 1
    values = _joined(list(zip(*events, strict=True)), _TEXTS, _PAYLOAD)
    return (None, (), 0) if values is None else (_SQL["of_one_flow"], (flow_id, *lease, *values), len(events))


_TEXTS: Final = (1, 2, 3, 4, 5, 7)
"""Which of an event's columns are texts: seq, kind, op, name, digest, payload, at, source, attempt."""
_PAYLOAD: Final = 5
"""Where the payload is, the only column that may be None."""
_TEXTS_OF_MANY: Final = (0, 1, *(3 + place for place in _TEXTS))
"""The same after the flow, its owner and its epoch."""
_PAYLOAD_OF_MANY: Final = 3 + _PAYLOAD


def _joined(columns: list[Any], texts: Sequence[int], payload: int) -> list[Any] | None:
    """Make one text of each column of texts; None when one of them holds what stands between texts."""
    payloads = columns[payload]
    if NULL in payloads:
        return None
    if None in payloads:
        columns[payload] = [NULL if one is None else one for one in payloads]
    for place in texts:
        column = columns[place]
        columns[place] = text = BETWEEN.join(column)
        if text.count(BETWEEN) >= len(column):
            return None
    return columns


def _flow_id(commit: Commit) -> str:
    return commit.flow_id
