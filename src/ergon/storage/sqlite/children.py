"""Children as their parents' commits start and cancel them.

Whether a child's id is free is known only here, inside the transaction that creates it, and the parent hears of it
through its inbox, in this same transaction. So no crash can part the question from the answer:

- before this transaction: neither the child nor a message is there; the parent's replay asks again.
- after it, before the parent has read the answer: the child is there, or the message is, unread. A replay that asks
  again finds its own child, which changes nothing, or hears once more that the id is taken.
- after the parent took the answer into its history: the message is consumed in that same commit, and a replay finds
  the event and asks no more.
"""

from __future__ import annotations

import json
from typing import Final

from ergon.core.commit import CancelName, Commit, IdTaken, Message, MessageKind, NewFlow
from ergon.storage.sqlite import damage, inbox, intake
from ergon.storage.sqlite.statements import statements
from ergon.storage.sqlite.transaction import Transaction, as_json

_SQL: Final = statements("children.sql")
PARENT_STOPPED_WAITING: Final = "parent"
"""The key of the cancellation a child gets: once for each attempt of its parent, however often a replay says so."""


def start(tx: Transaction, commits: list[Commit]) -> bool:
    """Insert the children of these commits. False when an id existed: `answer` says what follows."""
    children = [child for commit in commits for child in commit.children]
    return intake.insert(tx, children) == len(children)


def answer(tx: Transaction, commits: list[Commit]) -> None:
    """Tell parents whose child is another flow, or ended before they asked. Call when the commits are settled.

    A child that this very operation started before, with this name and input, is what was asked for.
    """
    taken: list[Message] = []
    for commit in commits:
        for child in commit.children:
            found, ended = _who_has(tx, child)
            ours = found is None or found.input is not None
            if found is not None:
                taken.append(_tell(commit, child, found))
            if ours and ended and child.id not in tx.ended:  # else it will be told of that end anyway
                _tell_again(tx, child)
    if taken:
        inbox.deliver(tx, taken)


def cancel(tx: Transaction, commits: list[Commit]) -> None:
    """Ask children to cancel; never a flow that is not that child."""
    cancels = [(cancel, commit.flow_id) for commit in commits for cancel in commit.cancels]
    if not cancels:
        return
    asked = as_json((cancel.flow_id, parent_id, cancel.op) for cancel, parent_id in cancels)
    theirs = [
        (cancels[place][0], child) for place, child in json.loads(tx.one(_SQL["theirs"], cancels=asked)[0])
    ]
    if any(cancel.flow_id is None for cancel, _ in cancels):
        of_steps = json.loads(tx.one(_SQL["of_steps"], cancels=asked)[0])
        theirs += [(cancels[place][0], child) for place, child in of_steps]
    messages = [
        Message(
            child,
            MessageKind.CANCEL,
            CancelName.PARENT,
            cancel.reason,
            f"{PARENT_STOPPED_WAITING}-{cancel.attempt}",
        )
        for cancel, child in theirs
    ]
    if messages:
        inbox.deliver(tx, messages)


def _who_has(tx: Transaction, child: NewFlow) -> tuple[IdTaken | None, bool]:
    """The flow that has a child's id unless it is that child, and whether it has ended."""
    asked = {"parent": child.parent_id, "op": child.parent_op, "name": child.name, "input": child.input}
    with damage.of(child.id):
        name, kept_input, ours, same, ended = tx.one(_SQL["who_has"], child=child.id, **asked)
    found = None if ours and same else IdTaken(child.id, name, kept_input if ours else None)
    return found, bool(ended)


def _tell(commit: Commit, child: NewFlow, found: IdTaken) -> Message:
    # The epoch in the key: told once for each time the parent's code asks, however often the commit is submitted.
    key = f"{child.id}#{commit.lease.epoch}"
    return Message(commit.flow_id, MessageKind.TAKEN, child.parent_op or "", found.payload, key)


def _tell_again(tx: Transaction, child: NewFlow) -> None:
    assert child.parent_id is not None
    if tx.run(_SQL["tell_again"], child=child.id, now=tx.now):
        if tx.run(_SQL["wake_parent"], parent=child.parent_id, now=tx.now):
            tx.ready = True
        tx.inbox.add(child.parent_id)
