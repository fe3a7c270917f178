"""Put messages into flows' inboxes, and do to the flows what the messages ask for.

The flows' rows are locked before (`journal.lock`): so a flow that is just going to sleep either sees the message or
is woken, and ids grow in the order in which messages of a flow become readable.
"""

from __future__ import annotations

from typing import Final

from ergon.core.commit import CANCEL_KEY, Message, MessageKind, read_reason
from ergon.storage.postgres.driver import Connection
from ergon.storage.postgres.rows import columns, kept
from ergon.storage.postgres.statements import statements
from ergon.storage.postgres.transaction import Transaction

_SQL: Final = statements("inbox.sql")
NEVER_STARTED: Final = "cancelled before it started"
"""Why, when whoever cancelled did not say."""


async def deliver(tx: Transaction, messages: list[Message]) -> int:
    """Insert messages and wake their flows, whose rows are locked; return how many were inserted.

    The others were for flows that have ended or do not exist, or repeat a key. Flows that a cancellation ended are
    in `tx.ended` afterwards.
    """
    cancels = [message for message in messages if message.kind == MessageKind.CANCEL]
    flows = [message.flow_id for message in messages if message.kind != MessageKind.CANCEL]
    meant = await _meant(tx, cancels) if cancels else {}
    rows = [
        (message.flow_id, message.kind, message.name, message.payload, message.key) for message in messages
    ]
    inserted = await tx.write(_SQL["insert"], *columns(rows, 5), tx.now)
    if inserted:
        if flows and await tx.write(_SQL["wake"], flows, tx.now):
            tx.ready = True
        tx.inbox.update(flows, (cancel.flow_id for cancel in cancels))
    if meant:
        await _cancel(tx, meant)
    return inserted


async def has_key(connection: Connection, message: Message) -> bool:
    """Tell whether a message with this one's key came before."""
    if message.key is None:
        return False
    found = await connection.fetchrow(
        _SQL["find_key"], message.flow_id, message.kind, message.name, message.key
    )
    return found is not None


async def _meant(tx: Transaction, cancels: list[Message]) -> dict[str, str]:
    """The flows that are to be cancelled, each with the reason.

    A cancel that is repeated while it is unread changes nothing: the flow may have been held back meanwhile. But a
    person who repeats one means it.
    """
    repeated: set[int] = set()
    if any(cancel.key is not None for cancel in cancels):
        keyed = [(cancel.flow_id, cancel.key) for cancel in cancels if cancel.key is not None]
        await tx.write(_SQL["forget_heard"], *columns(keyed, 2))
        named = [(cancel.flow_id, cancel.name, cancel.key) for cancel in cancels]
        repeated = {row[0] - 1 for row in await tx.rows(_SQL["repeated"], *columns(named, 3))}
    meant: dict[str, str] = {}
    for place, cancel in enumerate(cancels):
        if place not in repeated or cancel.key == CANCEL_KEY:
            meant.setdefault(cancel.flow_id, read_reason(cancel.payload))
    return meant


async def _cancel(tx: Transaction, reasons: dict[str, str]) -> None:
    flows = list(reasons)
    ids = [row[0] for row in await tx.rows(_SQL["never_started"], flows)]
    if ids:
        told = [kept(reasons[flow_id]) or NEVER_STARTED for flow_id in ids]
        await tx.write(_SQL["cancel_unstarted"], ids, told, tx.now)
        tx.ended += ids
        tx.settled.update(dict.fromkeys(ids))
    if await tx.write(_SQL["wake_to_cancel"], flows, tx.now):
        tx.ready = True
