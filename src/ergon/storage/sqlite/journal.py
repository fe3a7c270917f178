"""What owners write: commits, many at a time, each fenced by its lease.

The fence is the flow's own row (owner and epoch). No separate look at the worker's row is needed: declaring a worker
dead and taking its flows away is one transaction, so a flow that names an owner has a living one.
"""

from __future__ import annotations

import sqlite3
from itertools import chain
from typing import Any, Final

from ergon.core.commit import Commit
from ergon.core.status import TERMINAL, TaskStatus
from ergon.errors import IllegalMove
from ergon.storage.refused import lease_lost
from ergon.storage.sqlite import children, damage, ended
from ergon.storage.sqlite.statements import NULL, Bulk, statements
from ergon.storage.sqlite.transaction import Transaction

_SQL: Final = statements("journal.sql")
_EVENTS: Final = Bulk(_SQL["append_events"], 11)
_EVENTS_OF_ONE: Final = Bulk(_SQL["append_events_of_one"], 9)
_MANY: Final = 16
"""From so many events in one commit on, a statement of their own is quicker."""
LONE: Final = _SQL["append_lone"]
_CONSUME: Final = Bulk(_SQL["consume"], 3)
_RETURN: Final = Bulk(_SQL["return"], 2)
_SETTLE: Final = Bulk(_SQL["settle"], 9)
_WAKE: Final = Bulk(_SQL["wake_if_unread"], 3)

FIRST: Final = (_SETTLE.text(1), LONE)
"""What every flow needs: see `priming.py`."""


def apply(tx: Transaction, commits: list[Commit]) -> bool:
    """Write all of them. False when at least one was not written whole: roll back and apply each alone."""
    by_owner: dict[str, list[Any]] = {}
    more: list[Commit] = []
    for commit in commits:
        flow_id, (owner, epoch), events, consumed, cancels, new, settled, returned = commit
        if len(events) >= _MANY:
            flat = list(chain.from_iterable(events))
            if _EVENTS_OF_ONE.run(tx.connection, flat, head=(flow_id, owner, epoch)) != len(events):
                return False
        elif events:
            rows = by_owner.get(owner)
            if rows is None:  # most batches are of one worker
                rows = by_owner[owner] = []
            for event in events:
                rows += (flow_id, epoch)
                rows += event
        if settled is not None or consumed or cancels or new or returned or not events:
            more.append(commit)
    for owner, rows in by_owner.items():
        if _EVENTS.run(tx.connection, rows, tail=(owner,)) * 11 != len(rows):
            return False
    return not more or _apply_rest(tx, more)


def is_lone(commit: Commit) -> bool:
    """Tell whether it is one event and nothing else, as the result of a step is."""
    _, _, events, consumed, cancels, new, settled, returned = commit
    return len(events) == 1 and not (consumed or cancels or new or settled or returned)


def write_lone(connection: sqlite3.Connection, commit: Commit) -> None:
    """Write a lone event as a transaction of its own.

    Raises what SQLite says when it cannot, `sqlite3.IntegrityError` too when the flow has another owner or has this
    event; nothing is written then.
    """
    connection.execute(LONE, (commit.flow_id, *commit.lease, *commit.events[0]))


def apply_alone(tx: Transaction, commit: Commit) -> None:
    """Write one commit, or raise why not. The caller rolls back what a raising call wrote."""
    tx.run("SAVEPOINT alone")
    try:
        written = apply(tx, [commit])
    except sqlite3.IntegrityError:
        written = False
    if written:
        tx.run("RELEASE alone")
        return
    tx.run("ROLLBACK TO alone")
    tx.run("RELEASE alone")
    if not landed(tx.connection, commit):
        raise _refusal(tx, commit)


def landed(connection: sqlite3.Connection, commit: Commit) -> bool:
    """Tell by its events whether this very commit was written before; False when it has none."""
    for event in commit.events:
        with damage.of(commit.flow_id):
            row = connection.execute(
                _SQL["find_event"], {"flow": commit.flow_id, "seq": event.seq}
            ).fetchone()
        if row is None or tuple(row) != tuple(event[1:]):
            return False
    return bool(commit.events)


def _apply_rest(tx: Transaction, commits: list[Commit]) -> bool:
    fences = [commit for commit in commits if commit.settled is None and not commit.events]
    if not all(_owns(tx, commit) for commit in fences) or not (
        _return(tx, commits) and _consume(tx, commits)
    ):
        return False
    parents = [commit for commit in commits if commit.children]
    all_new = not parents or children.start(tx, parents)
    children.cancel(tx, commits)
    settling = [commit for commit in commits if commit.settled is not None]
    if settling and not _settle(tx, settling):
        return False
    if not all_new:
        children.answer(tx, parents)
    ended.tell_relatives(tx)
    return True


def _return(tx: Transaction, commits: list[Commit]) -> bool:
    rows: list[Any] = []
    for commit in commits:
        for seq in commit.returned:
            rows += (commit.flow_id, seq)
    return not rows or _RETURN.run(tx.connection, rows) * 2 == len(rows)


def _consume(tx: Transaction, commits: list[Commit]) -> bool:
    rows: list[Any] = []
    for commit in commits:
        for message_id, seq in commit.consumed:
            rows += (message_id, commit.flow_id, seq)
    return not rows or _CONSUME.run(tx.connection, rows) * 3 == len(rows)


def _owns(tx: Transaction, commit: Commit) -> bool:
    with damage.of(commit.flow_id):
        row = tx.one(_SQL["find_owner"], flow=commit.flow_id)
    return row is not None and tuple(row[1:]) == tuple(commit.lease)


def _settle(tx: Transaction, commits: list[Commit]) -> bool:
    rows: list[Any] = []
    suspended: list[Any] = []
    now = tx.now
    for flow_id, lease, _, _, _, _, settled, _ in commits:
        assert settled is not None
        status, output, wake_at, reason, inbox_seen = settled
        ended_at = ready_at = None
        if status in TERMINAL:
            ended_at, wake_at = now, None
            tx.ended.append(flow_id)
        elif status is TaskStatus.SUSPENDED:
            suspended += (flow_id, inbox_seen, now)
        elif status is TaskStatus.PENDING:
            if wake_at is None or wake_at <= now:
                ready_at, wake_at = now, None
                tx.ready = True
        else:
            wake_at = None
        if wake_at is not None:
            tx.wakes(wake_at)
        rows += (
            flow_id, *lease, status.value,
            NULL if output is None else output,
            NULL if wake_at is None else wake_at,
            reason,
            NULL if ended_at is None else ended_at,
            NULL if ready_at is None else ready_at,
        )  # fmt: skip
        tx.settled[flow_id] = settled
    if _SETTLE.run(tx.connection, rows) != len(commits):
        return False
    if suspended and _WAKE.run(tx.connection, suspended):
        tx.ready = True
    return True


def _refusal(tx: Transaction, commit: Commit) -> Exception:
    """Say why a commit was not written."""
    flow_id = commit.flow_id
    with damage.of(flow_id):
        row = tx.one(_SQL["find_owner"], flow=flow_id)
    if row is None or tuple(row[1:]) != tuple(commit.lease):
        return lease_lost(commit, row)
    for event in commit.events:
        if tx.one(_SQL["find_event"], flow=flow_id, seq=event.seq) is not None:
            return IllegalMove(f"flow {flow_id!r} already has another event {event.seq}; nothing was written")
    messages = [message_id for message_id, _ in commit.consumed]
    back = f", or no signal was taken with an event of {list(commit.returned)}" if commit.returned else ""
    return IllegalMove(f"flow {flow_id!r}: a message of {messages} was consumed before or never came{back}")
