"""Give ready flows to a worker: first those whose time has come become ready, then the best are taken.

Taking is a write and lands in the group commit. Reading what was taken is not: histories are read after it, on a
reading connection, so that a claim of long histories keeps nobody from writing. Nobody but the new owner can add to
them.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final

from ergon.core.commit import ClaimedFlow, ClaimRequest, Lease, Received
from ergon.core.status import TaskStatus
from ergon.errors import LogDamaged
from ergon.storage.sqlite import leases, rows
from ergon.storage.sqlite.errors import is_unreadable
from ergon.storage.sqlite.statements import statements
from ergon.storage.sqlite.transaction import Transaction, as_json

_SQL: Final = statements("claims.sql")


def take(tx: Transaction, request: ClaimRequest) -> list[str]:
    """Make ready flows the worker's own; return their ids, best first."""
    leases.check_alive(tx, request.worker)
    nums = _choose(tx, request)
    if nums == "[]":
        return []
    tx.run(_SQL["own"], nums=nums, now=tx.now, worker=request.worker, stalled_max=request.claims_stalled_max)
    owned, parked = tx.one(_SQL["owned"], nums=nums)
    tx.settled.update(json.loads(parked))
    return [str(flow_id) for flow_id in json.loads(owned)]


def load(
    connection: sqlite3.Connection, worker: str, flow_ids: list[str]
) -> tuple[list[ClaimedFlow], list[str]]:
    """Read flows just taken, with their histories and unread messages; and tell which cannot be read.

    One that an operator took away meanwhile is left out. One damaged row keeps only its own flow from running.
    """
    try:
        return _load(connection, worker, flow_ids), []
    except (sqlite3.Error, LogDamaged, UnicodeError) as error:
        if not is_unreadable(error):
            raise
    flows: list[ClaimedFlow] = []
    unreadable: list[str] = []
    for flow_id in flow_ids:
        try:
            flows += _load(connection, worker, [flow_id])
        except (sqlite3.Error, LogDamaged, UnicodeError) as error:
            if not is_unreadable(error):
                raise
            unreadable.append(flow_id)
    return flows, unreadable


def park_unreadable(tx: Transaction, worker: str, flow_ids: list[str]) -> None:
    """Park flows just taken that cannot be read, so that nobody claims them again and again."""
    tx.run(_SQL["park_unreadable"], worker=worker, flows=as_json(flow_ids))
    tx.settled.update(flow_ids)


def _load(connection: sqlite3.Connection, worker: str, flow_ids: list[str]) -> list[ClaimedFlow]:
    flows = {"flows": as_json(flow_ids)}
    records = rows.flow_records(_text(connection, "load_flows", flows))
    events = rows.events_by_flow(_text(connection, "load_events", flows))
    unread: dict[str, list[Received]] = {}
    for message in rows.messages(_text(connection, "load_inbox", flows)):
        unread.setdefault(message.flow_id, []).append(message)
    return [
        ClaimedFlow(flow, Lease(worker, flow.epoch), events.get(flow.id, []), unread.get(flow.id, []))
        for flow in records
        if flow.status is TaskStatus.RUNNING and flow.owner == worker
    ]


def _choose(tx: Transaction, request: ClaimRequest) -> str:
    names = as_json(request.names)
    if request.flow_id is not None:
        tx.run(_SQL["promote_one"], flow=request.flow_id, now=tx.now)
        return str(tx.one(_SQL["take_one"], flow=request.flow_id, names=names)[0])
    if request.limit <= 0:
        return "[]"
    if request.due:
        tx.run(_SQL["promote"], names=names, now=tx.now)
    queues = as_json(request.queues)
    if request.versions is None:
        row = tx.one(_SQL["take_any"], queues=queues, names=names, limit=request.limit)
    else:
        versions = as_json([None, *request.versions])
        row = tx.one(_SQL["take"], queues=queues, names=names, versions=versions, limit=request.limit)
    return str(row[0])


def _text(connection: sqlite3.Connection, statement: str, values: dict[str, str]) -> str | None:
    row = connection.execute(_SQL[statement], values).fetchone()
    return None if row is None else row[0]
