"""When a flow ends: its parent hears of it, and its children that close with it are cancelled."""

from __future__ import annotations

import json
from typing import Final

from ergon.core.commit import CancelName, Message, MessageKind, parent_cancelled
from ergon.core.status import TaskStatus
from ergon.storage.postgres import inbox, locks
from ergon.storage.postgres.rows import told
from ergon.storage.postgres.statements import statements
from ergon.storage.postgres.transaction import Transaction

_SQL: Final = statements("ended.sql")
PARENT_CLOSED: Final = "parent-closed"
"""The key of the cancellation a child gets: once, however often its parent ends."""


async def tell_relatives(tx: Transaction) -> None:
    """Carry the end of the flows in `tx.ended` to their relatives, and on from there, in the same transaction."""
    while tx.ended:
        flows, tx.ended = list(dict.fromkeys(tx.ended)), []
        parents = [row[0] for row in await tx.rows(_SQL["parents"], flows)]
        children = await tx.rows(_SQL["children"], flows)
        if not parents and not children:
            continue
        # Most are locked already: whoever ends a flow has asked for its relatives. Not those of a child that never
        # started.
        await locks.lock(tx, [*parents, *(row[0] for row in children)])
        if parents:
            await tx.write(_SQL["tell_parents"], flows, tx.now)
            if await tx.write(_SQL["wake_parents"], parents, tx.now):
                tx.ready = True
            tx.inbox.update(parents)
        if children:
            await inbox.deliver(tx, [_cancel(*row) for row in children])


def _cancel(child: str, status: str, reason: str) -> Message:
    why = parent_cancelled(told(reason)) if status == TaskStatus.CANCELLED else f"its parent {status}"
    said = json.dumps(why, ensure_ascii=False)
    return Message(child, MessageKind.CANCEL, CancelName.PARENT_ENDED, said, PARENT_CLOSED)
