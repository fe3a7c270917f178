"""When a flow ends: its parent hears of it, and its children that close with it are cancelled.

A relative whose row is damaged is passed over: it keeps nobody from ending.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Final

from ergon.core.commit import CancelName, Message, MessageKind, parent_cancelled
from ergon.core.status import TaskStatus
from ergon.storage.sqlite import damage, inbox
from ergon.storage.sqlite.statements import statements
from ergon.storage.sqlite.transaction import Transaction, as_json

_SQL: Final = statements("ended.sql")
FIRST: Final = (_SQL["relatives"],)
"""What every flow needs: see `priming.py`."""
PARENT_CLOSED: Final = "parent-closed"
"""The key of the cancellation a child gets: once, however often its parent ends."""


def tell_relatives(tx: Transaction) -> None:
    """Carry the end of the flows in `tx.ended` to their relatives, and on from there, in the same transaction."""
    while tx.ended:
        flows = as_json(tx.ended)
        tx.ended = []
        parents, children = tx.one(_SQL["relatives"], flows=flows)
        if parents != "[]":
            tx.run(_SQL["tell_parents"], flows=flows, now=tx.now)
            damage.pass_over(tx, json.loads(parents), partial(_wake_parents, tx))
            tx.inbox.update(json.loads(parents))
        if children != "{}":
            reasons = {child: _why(*end) for child, end in json.loads(children).items()}
            damage.pass_over(tx, list(reasons), partial(_cancel_children, tx, reasons))


def _wake_parents(tx: Transaction, parents: list[str]) -> None:
    if tx.run(_SQL["wake_parents"], flows=as_json(parents), now=tx.now):
        tx.ready = True


def _cancel_children(tx: Transaction, reasons: dict[str, str], children: list[str]) -> None:
    inbox.deliver(
        tx,
        [
            Message(child, MessageKind.CANCEL, CancelName.PARENT_ENDED, reason, PARENT_CLOSED)
            for child in children
            for reason in [json.dumps(reasons[child], ensure_ascii=False)]
        ],
    )


def _why(status: str, reason: str) -> str:
    """What a child is told whose parent ended so."""
    return parent_cancelled(reason) if status == TaskStatus.CANCELLED else f"its parent {status}"
