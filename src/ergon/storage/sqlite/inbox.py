"""Put messages into flows' inboxes, and do to the flows what the messages ask for."""

from __future__ import annotations

import json
from typing import Any, Final

from ergon.core.commit import Message, MessageKind
from ergon.storage.sqlite.statements import Bulk, statements
from ergon.storage.sqlite.transaction import Transaction, as_json

_SQL: Final = statements("inbox.sql")
_INSERT: Final = Bulk(_SQL["insert"], 6)


def deliver(tx: Transaction, messages: list[Message]) -> int:
    """Insert messages and wake their flows; return how many were inserted.

    The others were for flows that have ended or do not exist, or repeat a key. Flows that a cancellation ended are
    in `tx.ended` afterwards.
    """
    rows: list[Any] = []
    cancelled: list[str] = []
    flows: list[str] = []
    for flow_id, kind, name, payload, key in messages:
        rows += (flow_id, kind, name, payload, key, tx.now)
        (cancelled if kind == MessageKind.CANCEL else flows).append(flow_id)
    inserted = _INSERT.run(tx.connection, rows)
    if not inserted:
        return 0
    if flows and tx.run(_SQL["wake"], flows=as_json(flows), now=tx.now):
        tx.ready = True
    if cancelled:
        _cancel(tx, cancelled)
    tx.inbox.update(flows, cancelled)
    return inserted


def has_key(tx: Transaction, message: Message) -> bool:
    """Tell whether a message with this one's key came before."""
    if message.key is None:
        return False
    found = tx.one(
        _SQL["find_key"], flow=message.flow_id, kind=message.kind, name=message.name, key=message.key
    )
    return found is not None


def _cancel(tx: Transaction, flows: list[str]) -> None:
    unstarted = tx.one(_SQL["never_started"], flows=as_json(flows))[0]
    if unstarted != "[]":
        tx.run(_SQL["cancel_unstarted"], flows=unstarted, now=tx.now)
        ids = json.loads(unstarted)
        tx.ended += ids
        tx.settled.update(dict.fromkeys(ids))
    if tx.run(_SQL["wake_to_cancel"], flows=as_json(flows), now=tx.now):
        tx.ready = True
