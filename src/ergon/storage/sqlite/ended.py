"""When a flow ends: its parent hears of it, and its children that close with it are cancelled."""

from __future__ import annotations

import json
from typing import Final

from ergon.core.commit import Message, MessageKind
from ergon.storage.sqlite import inbox
from ergon.storage.sqlite.statements import statements
from ergon.storage.sqlite.transaction import Transaction, as_json

_SQL: Final = statements("ended.sql")
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
            if tx.run(_SQL["wake_parents"], flows=parents, now=tx.now):
                tx.ready = True
            tx.inbox.update(json.loads(parents))
        if children != "[]":
            cancel = [
                Message(child, MessageKind.CANCEL, "", None, PARENT_CLOSED) for child in json.loads(children)
            ]
            inbox.deliver(tx, cancel)
