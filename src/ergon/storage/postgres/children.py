"""Children as their parents' commits start and cancel them.

Whether a child's id is free is known only here, inside the transaction that creates it, and the parent hears of it
through its inbox, in this same transaction. So no crash can part the question from the answer:

- before this transaction: neither the child nor a message is there; the parent's replay asks again.
- after it, before the parent has read the answer: the child is there, or the message is, unread. A replay that asks
  again finds its own child, which changes nothing, or hears once more that the id is taken.
- after the parent took the answer into its history: the message is consumed in that same commit, and a replay finds
  the event and asks no more.

A child that ends at this moment in another transaction tells its parent there, under the lock of the parent's row,
which is held here: so either its end is seen here, or it is told after this has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ergon.core.commit import CancelName, Commit, IdTaken, Message, MessageKind, NewFlow
from ergon.storage.postgres import inbox, intake
from ergon.storage.postgres.rows import columns
from ergon.storage.postgres.statements import statements
from ergon.storage.postgres.transaction import Transaction

_SQL: Final = statements("children.sql")
PARENT_STOPPED_WAITING: Final = "parent"
"""The key of the cancellation a child gets: once for each attempt of its parent, however often a replay says so."""


async def start(tx: Transaction, commits: Sequence[Commit]) -> bool:
    """Insert the children of these commits. False when an id existed: `answer` says what follows."""
    new = [child for commit in commits for child in commit.children]
    return len(await intake.insert(tx, new)) == len(new)


async def answer(tx: Transaction, commits: Sequence[Commit]) -> None:
    """Tell parents whose child is another flow, or ended before they asked. Call when the commits are settled.

    A child that this very operation started before, with this name and input, is what was asked for.
    """
    asked = [(commit, child) for commit in commits for child in commit.children]
    rows = [(child.id, child.parent_id, child.parent_op, child.name, child.input) for _, child in asked]
    taken: list[Message] = []
    for place, name, kept_input, ours, same, ended in await tx.rows(_SQL["who_has"], *columns(rows, 5)):
        commit, child = asked[place - 1]
        if not (ours and same):
            taken.append(_tell(commit, child, IdTaken(child.id, name, kept_input if ours else None)))
        if ours and ended and child.id not in tx.ended:  # else it will be told of that end anyway
            await _tell_again(tx, child)
    if taken:
        await inbox.deliver(tx, taken)


async def cancel(tx: Transaction, commits: Sequence[Commit]) -> None:
    """Ask children to cancel, whose rows are locked; never a flow that is not that child."""
    cancels = [(cancel, commit.flow_id) for commit in commits for cancel in commit.cancels]
    if not cancels:
        return
    rows = [(cancel.flow_id, parent_id, cancel.op) for cancel, parent_id in cancels]
    messages = []
    for place, child in await tx.rows(_SQL["theirs"], *columns(rows, 3)):
        asked = cancels[place - 1][0]
        key = f"{PARENT_STOPPED_WAITING}-{asked.attempt}"
        messages.append(Message(child, MessageKind.CANCEL, CancelName.PARENT, asked.reason, key))
    if messages:
        await inbox.deliver(tx, messages)


def _tell(commit: Commit, child: NewFlow, found: IdTaken) -> Message:
    # The epoch in the key: told once for each time the parent's code asks, however often the commit is submitted.
    key = f"{child.id}#{commit.lease.epoch}"
    return Message(commit.flow_id, MessageKind.TAKEN, child.parent_op or "", found.payload, key)


async def _tell_again(tx: Transaction, child: NewFlow) -> None:
    assert child.parent_id is not None, "a commit's children have a parent"
    if await tx.write(_SQL["tell_again"], child.id, tx.now):
        if await tx.write(_SQL["wake_parent"], child.parent_id, tx.now):
            tx.ready = True
        tx.inbox.add(child.parent_id)
