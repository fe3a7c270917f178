"""What anyone may read. Each function is one short read transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from ergon.core.commit import FlowFilter, FlowRecord, Received, WorkerRecord
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.errors import UsageError
from ergon.storage.sqlite import rows
from ergon.storage.sqlite.statements import statements
from ergon.storage.sqlite.transaction import as_json

_SQL: Final = statements("catalog.sql")


def find(connection: sqlite3.Connection, flow_id: str) -> FlowRecord | None:
    """One flow, or None."""
    text = _text(connection, "find", flow=flow_id)
    return rows.flow_records(text)[0] if text else None


def history(connection: sqlite3.Connection, flow_id: str, after: int, limit: int | None) -> list[Event]:
    """A flow's events after one, in order."""
    text = _text(connection, "history", flow=flow_id, after=after, limit=-1 if limit is None else limit)
    return rows.events_by_flow(text).get(flow_id, [])


def unread(connection: sqlite3.Connection, flow_id: str) -> list[Received]:
    """A flow's messages that no event accounts for, oldest first."""
    return rows.messages(_text(connection, "inbox", flow=flow_id))


def arrivals(connection: sqlite3.Connection, worker_id: str, after: int) -> tuple[int, list[Received]]:
    """Messages for a worker's flows since a cursor, and the next cursor.

    The cursor is read first: what lands between the two reads is returned now and again next time.
    """
    cursor = max(after, int(connection.execute(_SQL["cursor"]).fetchone()[0]))
    if after <= 0:
        return cursor, rows.messages(_text(connection, "arrivals_from_start", worker=worker_id))
    if cursor == after:
        return cursor, []
    return cursor, rows.messages(_text(connection, "arrivals", worker=worker_id, after=after))


def settled(connection: sqlite3.Connection, flow_ids: Sequence[str]) -> tuple[list[FlowRecord], list[str]]:
    """Those of the flows that ended or are parked, and the ids that belong to none."""
    flows = as_json(flow_ids)
    records = rows.flow_records(_text(connection, "settled", flows=flows))
    return records, json.loads(str(_text(connection, "absent", flows=flows)))


def workers(connection: sqlite3.Connection) -> list[WorkerRecord]:
    """Every incarnation on record, newest first."""
    return rows.worker_records(_text(connection, "workers"))


def next_wake(connection: sqlite3.Connection, names: Sequence[str]) -> float | None:
    """When the next flow of these names becomes ready by time."""
    at = connection.execute(_SQL["next_wake"], {"names": as_json(names)}).fetchone()[0]
    return None if at is None else float(at)


def page(
    connection: sqlite3.Connection, where: FlowFilter, limit: int, after: str | None
) -> tuple[list[FlowRecord], str | None]:
    """Flows newest first, and the key of the next page.

    Each status asked for is read by itself, newest first, and the pages are merged: so a rare status among many
    flows costs no more than a common one.
    """
    found: list[tuple[int, str]] = []
    before = _position(after) if after is not None else 1 << 62
    for status in dict.fromkeys(where.statuses) or (None,):
        condition, values = _conditions(where, status)
        values |= {"before": before, "limit": limit + 1}
        sql = (
            "SELECT '[' || group_concat(json_array(num, row)) || ']' FROM (SELECT num, row FROM flow_rows "  # noqa: S608 - from fixed parts
            f"WHERE num < :before AND {condition} ORDER BY num DESC LIMIT :limit)"
        )
        found += rows.numbered(connection.execute(sql, values).fetchone()[0])
    found.sort(reverse=True)
    more = str(found[limit - 1][0]) if len(found) > limit > 0 else None
    return rows.flow_records("[" + ",".join(row for _, row in found[:limit]) + "]"), more


def count(connection: sqlite3.Connection, where: FlowFilter) -> dict[TaskStatus, int]:
    """How many flows there are of each status."""
    condition, values = _conditions(where, None)
    if where.statuses:
        condition += " AND status IN (SELECT value FROM json_each(:statuses))"
        values["statuses"] = as_json([status.value for status in where.statuses])
    sql = (
        "SELECT json_group_array(json_array(status, flows)) FROM "  # noqa: S608 - from fixed parts
        f"(SELECT status, count(*) AS flows FROM flows WHERE {condition} GROUP BY status)"
    )
    return rows.counts(connection.execute(sql, values).fetchone()[0])


# The only place where a statement is put together: from these fixed parts, never from data.
_PARTS: Final = {
    "queue": "queue = :queue",
    "version": "version = :version",
    "parent_id": "parent_id = :parent_id",
    "created_after": "created_at > :created_after",
    "created_before": "created_at < :created_before",
}


def _conditions(where: FlowFilter, status: TaskStatus | None) -> tuple[str, dict[str, Any]]:
    parts, values = ["1"], dict[str, Any]()
    if status is not None:
        parts.append("status = :status")
        values["status"] = status.value
    if len(where.names) == 1:
        parts.append("name = :name")
        values["name"] = where.names[0]
    elif where.names:
        parts.append("name IN (SELECT value FROM json_each(:names))")
        values["names"] = as_json(where.names)
    if where.id_prefix:
        parts.append("id >= :id_prefix AND id < :id_end")
        values |= {"id_prefix": where.id_prefix, "id_end": where.id_prefix + "\U0010ffff"}
    for field, part in _PARTS.items():
        value = getattr(where, field)
        if value is not None:
            parts.append(part)
            values[field] = value
    return " AND ".join(parts), values


def _text(connection: sqlite3.Connection, statement: str, **values: Any) -> str | None:
    row = connection.execute(_SQL[statement], values).fetchone()
    return None if row is None else row[0]


def _position(key: str) -> int:
    """The place in the list that a page's key names."""
    if not (key.isascii() and key.isdigit() and len(key) < 19):
        raise UsageError(f"after={key!r} is no key of a page; pass the key that the page before returned")
    return int(key)
