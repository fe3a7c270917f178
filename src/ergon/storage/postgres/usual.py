"""What most batches hold, as one statement, so one way to the server and back.

New flows, results of steps, ends of flows. It is a transaction by itself and lands whole or not at all: whatever is not
as usual in it, such as an id that exists, a lease that is lost, an end of which a parent or a child has to hear, makes
it fail, and the batch goes the longer way. So there is nothing in its answer that could be lost but whether it has
landed, and its number in `landed` tells that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from ergon.core.commit import Commit, NewFlow
from ergon.core.status import TaskStatus
from ergon.storage.postgres import intake, journal
from ergon.storage.postgres.appends import has_only_events
from ergon.storage.postgres.statements import statements
from ergon.storage.postgres.texts import joined
from ergon.storage.postgres.transaction import Transaction
from ergon.storage.postgres.writes import Create, What

_SQL: Final = statements("usual.sql")["usual"]


class Usual(NamedTuple):
    """A batch sorted out."""

    going_on: list[Commit]
    """They have only events."""
    settling: list[Commit]
    """They have nothing but how the flow is left."""
    new: list[NewFlow]


def sort_out(batch: Sequence[What]) -> Usual | None:
    """Sort a batch out; None when something unusual is in it, or a flow twice."""
    found = Usual([], [], [])
    flows: set[str] = set()
    for what in batch:
        if type(what) is Create and what.flow.owner is None:
            found.new.append(what.flow)
            flows.add(what.flow.id)
        elif type(what) is Commit and has_only_events(what):
            found.going_on.append(what)
            flows.add(what.flow_id)
        elif type(what) is Commit and _only_settles(what):
            found.settling.append(what)
            flows.add(what.flow_id)
        else:
            return None
    return found if len(flows) == len(batch) else None


async def write(usual: Usual, tx: Transaction, writer: str, number: int) -> None:
    """Write all of it under this number. Raises the server's error when nothing of it was written."""
    leases = sorted((commit.flow_id, *commit.lease) for commit in (*usual.going_on, *usual.settling))
    events = [(commit.flow_id, *event) for commit in usual.going_on for event in commit.events]
    settled, _ = journal.settled_rows(tx, usual.settling)
    tx.ended.clear()  # nobody has to hear of these
    new = intake.new_rows(tx, usual.new)
    values = [
        *_columns(leases, "tti"),
        *_columns(events, "titttttfti"),
        *_columns(settled, "ttittftff"),
        *_columns(new, "tttttitfffffftiittbt"),
    ]
    await tx.connection.fetchrow(
        _SQL, writer, number, tx.now, len(leases), len(events), len(settled), len(new), *values
    )


def _columns(rows: Sequence[tuple[Any, ...]], kinds: str) -> list[Any]:
    """Turn rows into columns; those of text (`t`) into one text each."""
    columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(kinds)
    return [joined(column) if kind == "t" else column for column, kind in zip(columns, kinds, strict=True)]


def _only_settles(commit: Commit) -> bool:
    """Not a flow that goes to sleep: a message may have come, which only a later statement sees."""
    _, _, events, consumed, cancels, new, settled, returned = commit
    if settled is None or events or consumed or cancels or new or returned:
        return False
    return settled.status is not TaskStatus.SUSPENDED
