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
    cancelled: dict[str, str] = {}
    heard: list[tuple[str, str | None]] = []
    flows: list[str] = []
    for flow_id, kind, name, payload, key in messages:
        rows += (flow_id, kind, name, payload, key, tx.now)
        if kind == MessageKind.CANCEL:
            cancelled.setdefault(flow_id, read_reason(payload))
            heard.append((flow_id, key))
        else:
            flows.append(flow_id)
    if heard:
        tx.run(_SQL["forget_heard"], cancels=as_json(heard))
    inserted = _INSERT.run(tx.connection, rows)
    if not inserted:
        # A person who repeats a cancel that is unread means it also if the flow was held back meanwhile.
        repeated = {flow_id: cancelled[flow_id] for flow_id, key in heard if key == CANCEL_KEY}
        if repeated:
            _cancel(tx, repeated)
        return 0
    if flows and tx.run(_SQL["wake"], flows=as_json(flows), now=tx.now):
        tx.ready = True
    if cancelled:
        _cancel(tx, cancelled)
    tx.inbox.update(flows, cancelled)
    return inserted


def has_key(connection: sqlite3.Connection, message: Message) -> bool:
    """Tell whether a message with this one's key came before."""
    if message.key is None:
        return False
    named = {"flow": message.flow_id, "kind": message.kind, "name": message.name, "key": message.key}
    return connection.execute(_SQL["find_key"], named).fetchone() is not None


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
