"""Put messages into flows' inboxes, and do to the flows what the messages ask for."""

from __future__ import annotations

import json
import sqlite3
from typing import Any, Final

from ergon.core.commit import CANCEL_KEY, Message, MessageKind, read_reason
from ergon.storage.sqlite.statements import Bulk, statements
from ergon.storage.sqlite.transaction import Transaction, as_json

_SQL: Final = statements("inbox.sql")
_INSERT: Final = Bulk(_SQL["insert"], 6)
NEVER_STARTED: Final = "cancelled before it started"
"""Why, when whoever cancelled did not say."""


def deliver(tx: Transaction, messages: list[Message]) -> int:
    """Insert messages and wake their flows; return how many were inserted.

    The others were for flows that have ended or do not exist, or repeat a key. Flows that a cancellation ended are
    in `tx.ended` afterwards.
    """
    rows: list[Any] = []
    cancels: list[Message] = []
    flows: list[str] = []
    for message in messages:
        rows += (*message, tx.now)
        if message.kind == MessageKind.CANCEL:
            cancels.append(message)
        else:
            flows.append(message.flow_id)
    meant = _meant(tx, cancels) if cancels else {}
    inserted = _INSERT.run(tx.connection, rows)
    if inserted:
        if flows and tx.run(_SQL["wake"], flows=as_json(flows), now=tx.now):
            tx.ready = True
        tx.inbox.update(flows, (cancel.flow_id for cancel in cancels))
    if meant:
        _cancel(tx, meant)
    return inserted


def has_key(connection: sqlite3.Connection, message: Message) -> bool:
    """Tell whether a message with this one's key came before."""
    if message.key is None:
        return False
    named = {"flow": message.flow_id, "kind": message.kind, "name": message.name, "key": message.key}
    return connection.execute(_SQL["find_key"], named).fetchone() is not None


def _meant(tx: Transaction, cancels: list[Message]) -> dict[str, str]:
    """The flows that are to be cancelled, each with the reason.

    A cancel that is repeated while it is unread changes nothing: the flow may have been held back meanwhile. But a
    person who repeats one means it.
    """
    named = as_json((cancel.flow_id, cancel.name, cancel.key) for cancel in cancels)
    tx.run(_SQL["forget_heard"], cancels=named)
    repeated = json.loads(tx.one(_SQL["repeated"], cancels=named)[0])
    meant: dict[str, str] = {}
    for place, cancel in enumerate(cancels):
        if place not in repeated or cancel.key == CANCEL_KEY:
            meant.setdefault(cancel.flow_id, read_reason(cancel.payload))
    return meant


def _cancel(tx: Transaction, reasons: dict[str, str]) -> None:
    flows = list(reasons)
    ids = json.loads(tx.one(_SQL["never_started"], flows=as_json(flows))[0])
    if ids:
        told = {flow_id: reasons[flow_id] or NEVER_STARTED for flow_id in ids}
        tx.run(_SQL["cancel_unstarted"], reasons=json.dumps(told), now=tx.now)
        tx.ended += ids
        tx.settled.update(dict.fromkeys(ids))
    if tx.run(_SQL["wake_to_cancel"], flows=as_json(flows), now=tx.now):
        tx.ready = True
