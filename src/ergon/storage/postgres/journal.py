"""What owners write: commits, many at a time, each fenced by its lease.

The fence is the flow's own row (owner and epoch), locked until the transaction ends. No separate look at the worker's
row is
needed: declaring a worker dead and taking its flows away is one transaction, so a flow that names an owner has a
living one; and taking a flow away waits for that lock.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final

from ergon.core.commit import Commit
from ergon.core.history import Event
from ergon.core.status import TERMINAL, TaskStatus
from ergon.errors import IllegalMove, LogDamaged
from ergon.storage.postgres import children, ended
from ergon.storage.postgres.driver import Connection
from ergon.storage.postgres.locks import Standing, lock
from ergon.storage.postgres.packs import damaged, events_of
from ergon.storage.postgres.rows import columns, kept
from ergon.storage.postgres.statements import statements
from ergon.storage.postgres.transaction import Transaction
from ergon.storage.refused import lease_lost

_SQL: Final = statements("journal.sql")


class Refused(Exception):
    """Something of several commits, or of one, was not written whole: roll back, and find out which by trying each."""


async def locked(
    tx: Transaction, commits: Sequence[Commit], others: Sequence[str] = ()
) -> dict[str, Standing]:
    """Lock the rows of all flows that these commits concern, and of `others`; return how they stand."""
    flows = [*others]
    ending = []
    for commit in commits:
        flows.append(commit.flow_id)
        if commit.settled is not None and commit.settled.status in TERMINAL:
            ending.append(commit.flow_id)
        for cancel in commit.cancels:
            if cancel.flow_id is None:
                ending.append(commit.flow_id)  # its children are about to be cancelled
            else:
                flows.append(cancel.flow_id)
    return await lock(tx, flows, ending)


async def fence(
    tx: Transaction, commits: Sequence[Commit], standing: dict[str, Standing]
) -> dict[int, BaseException | None]:
    """Return the answers to commits, by place, whose lease owns the flow no more: None for one that landed before."""
    late = [
        place
        for place, commit in enumerate(commits)
        if standing.get(commit.flow_id, ("",))[1:] != commit.lease
    ]
    if not late:
        return {}
    before = await landed(tx.connection, [commits[place] for place in late])
    return {
        place: None if was else lease_lost(commits[place], standing.get(commits[place].flow_id))
        for place, was in zip(late, before, strict=True)
    }


async def apply(tx: Transaction, commits: Sequence[Commit]) -> None:
    """Write commits whose leases hold and whose flows are locked. Raises `Refused`, or the server's error."""
    rows = [(commit.flow_id, *event) for commit in commits for event in commit.events]
    if rows:
        await tx.write(_SQL["add"], *columns(rows, 10))
    await _return(tx, commits)
    await _consume(tx, commits)
    parents = [commit for commit in commits if commit.children]
    all_new = not parents or await children.start(tx, parents)
    await children.cancel(tx, commits)
    await _settle(tx, [commit for commit in commits if commit.settled is not None])
    if not all_new:
        await children.answer(tx, parents)
    await ended.tell_relatives(tx)


async def landed(connection: Connection, commits: Sequence[Commit]) -> list[bool]:
    """Tell of each commit by its events whether it was written before; False when it has none."""
    found = await _there(connection, commits)
    return [
        bool(commit.events)
        and all(found.get((commit.flow_id, event.seq)) == event for event in commit.events)
        for commit in commits
    ]


async def _there(connection: Connection, commits: Sequence[Commit]) -> dict[tuple[str, int], Event | None]:
    """The events that bear the numbers of these commits', by flow and number; None where damage hides one."""
    wanted = [(commit.flow_id, event.seq) for commit in commits for event in commit.events]
    there: dict[tuple[str, int], Event | None] = {}
    for row in await connection.fetch(_SQL["find_events"], *columns(wanted, 2)) if wanted else []:
        there[row[0], row[1]] = None
        with contextlib.suppress(LogDamaged):  # whoever reads the flow hears of it
            there.update(((row[0], event.seq), event) for event in events_of([row[1:]], row[0]))
    return there


async def refusal(tx: Transaction, commit: Commit) -> BaseException | None:
    """Say why a commit whose lease holds was not written; None when it was, before."""
    (was,) = await landed(tx.connection, [commit])
    if was:
        return None
    flow_id = commit.flow_id
    taken = await _there(tx.connection, [commit])
    if taken:
        place = min(taken)
        if taken[place] is None:
            return damaged(*place, "; nothing was written")
        return IllegalMove(f"flow {flow_id!r} already has another event {place[1]}; nothing was written")
    messages = [message_id for message_id, _ in commit.consumed]
    back = f", or no signal was taken with an event of {list(commit.returned)}" if commit.returned else ""
    return IllegalMove(f"flow {flow_id!r}: a message of {messages} was consumed before or never came{back}")


async def _return(tx: Transaction, commits: Sequence[Commit]) -> None:
    rows = [(commit.flow_id, seq) for commit in commits for seq in commit.returned]
    if rows and await tx.write(_SQL["return"], *columns(rows, 2)) != len(rows):
        raise Refused


async def _consume(tx: Transaction, commits: Sequence[Commit]) -> None:
    rows = [(commit.flow_id, id, seq) for commit in commits for id, seq in commit.consumed]
    if rows and await tx.write(_SQL["consume"], *columns(rows, 3)) != len(rows):
        raise Refused


def settled_rows(
    tx: Transaction, commits: Sequence[Commit]
) -> tuple[list[tuple[Any, ...]], list[tuple[str, int]]]:
    """The rows of flows that their owners let go; and of those that go to sleep, what their owner has seen.

    Those that end are in `tx.ended` afterwards.
    """
    rows: list[tuple[Any, ...]] = []
    suspended: list[tuple[str, int]] = []
    now = tx.now
    for flow_id, lease, _, _, _, _, settled, _ in commits:
        assert settled is not None, "the caller has chosen those that settle"
        status, output, wake_at, reason, inbox_seen = settled
        ended_at = ready_at = None
        if status in TERMINAL:
            ended_at, wake_at = now, None
            tx.ended.append(flow_id)
        elif status is TaskStatus.SUSPENDED:
            suspended.append((flow_id, inbox_seen))
        elif status is TaskStatus.PENDING:
            if wake_at is None or wake_at <= now:
                ready_at, wake_at = now, None
                tx.ready = True
        else:
            wake_at = None
        if wake_at is not None:
            tx.wakes(wake_at)
        rows.append((flow_id, *lease, status.value, output, wake_at, kept(reason), ended_at, ready_at))
        tx.settled[flow_id] = settled
    return rows, suspended


async def _settle(tx: Transaction, commits: Sequence[Commit]) -> None:
    if not commits:
        return
    rows, suspended = settled_rows(tx, commits)
    if await tx.write(_SQL["settle"], *columns(rows, 9)) != len(rows):
        raise Refused
    if suspended and await tx.write(_SQL["wake_if_unread"], *columns(suspended, 2), tx.now):
        tx.ready = True
