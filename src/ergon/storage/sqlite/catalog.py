"""What anyone may read. Each function is one short read transaction.

A damaged row is met with `damage.py`: only whoever asks for its flow gets an error.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar

from ergon.core.commit import FlowFilter, FlowRecord, Received, WorkerRecord
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.errors import UsageError
from ergon.storage.sqlite import damage, joined, rows
from ergon.storage.sqlite.errors import is_unreadable
from ergon.storage.sqlite.statements import statements, with_rows
from ergon.storage.sqlite.transaction import as_json

T = TypeVar("T")
_SQL: Final = statements("catalog.sql")
_SEQ: Final[Callable[[Event], int]] = attrgetter("seq")
_ID: Final[Callable[[Received], int]] = attrgetter("id")


def find(connection: sqlite3.Connection, flow_id: str) -> FlowRecord | None:
    """One flow, or None."""
    with damage.of(flow_id):
        text = _text(connection, "find", flow=flow_id)
        return rows.flow_records(text)[0] if text else None


def history(connection: sqlite3.Connection, flow_id: str, after: int, limit: int | None) -> list[Event]:
    """A flow's events after one, in order."""
    with damage.of(flow_id):
        return joined.read(
            connection,
            _SQL["history"],
            lambda text: rows.events_by_flow(text).get(flow_id, []),
            _SEQ,
            flow=flow_id,
            after=after,
            limit=limit,
        )


def unread(connection: sqlite3.Connection, flow_id: str) -> list[Received]:
    """A flow's messages that no event accounts for, oldest first."""
    with damage.of(flow_id):
        return joined.read(connection, _SQL["inbox"], rows.messages, _ID, flow=flow_id)


def newest_message(connection: sqlite3.Connection) -> int:
    """The highest number that a message ever had."""
    return int(connection.execute(_SQL["cursor"]).fetchone()[0])


def arrivals(connection: sqlite3.Connection, worker_id: str, after: int) -> tuple[int, list[Received]]:
    """Messages for a worker's flows since a cursor, and the next cursor.

    The cursor is read first: what lands between the two reads is returned now and again next time.
    """
    cursor = max(after, newest_message(connection))
    if cursor == after > 0:
        return cursor, []
    statement = "arrivals" if after > 0 else "arrivals_from_start"
    try:
        found = joined.read(connection, _SQL[statement], rows.messages, _ID, worker=worker_id, after=after)
    except damage.UNREADABLE as error:
        if not is_unreadable(error):
            raise
        found = _sound_arrivals(connection, f"{statement}_ids", worker_id, after)
    return cursor, found


def ended_or_parked(
    connection: sqlite3.Connection, flow_ids: Sequence[str]
) -> tuple[list[FlowRecord], list[str]]:
    """Those of the flows that ended or are parked, and the ids that belong to none."""
    flows = as_json(flow_ids)
    try:
        with joined.bounded(connection):
            records = rows.flow_records(_text(connection, "ended_or_parked", flows=flows))
    except damage.UNREADABLE as error:
        if not is_unreadable(error):
            raise
        records = []
        for flow_id in flow_ids:
            with damage.of(flow_id):
                records += rows.flow_records(_text(connection, "ended_or_parked", flows=as_json([flow_id])))
    return records, json.loads(str(_text(connection, "absent", flows=flows)))


def lost(
    connection: sqlite3.Connection, worker_id: str, epochs: Sequence[tuple[str, int]]
) -> list[tuple[str, TaskStatus | None]]:
    """Those of the flows that a worker does not own at this epoch."""
    return rows.standings(_text(connection, "lost", worker=worker_id, epochs=as_json(epochs), known=_KNOWN))


def workers(connection: sqlite3.Connection) -> list[WorkerRecord]:
    """Every incarnation on record, newest first."""
    return rows.worker_records(_text(connection, "workers"))


def next_wake(connection: sqlite3.Connection, names: Sequence[str]) -> float | None:
    """When the next flow of these names becomes ready by time."""
    at = connection.execute(_SQL["next_wake"], {"names": as_json(names)}).fetchone()[0]
    return float(at) if isinstance(at, float | int) else None  # a time that is none makes nothing ready


def page(
    connection: sqlite3.Connection, where: FlowFilter, limit: int, after: str | None
) -> tuple[list[FlowRecord], str | None]:
    """Flows newest first, and the key of the next page.

    Each status asked for is read by itself, newest first, and the pages are merged: so a rare status among many
    flows costs no more than a common one. A flow that goes from one to another meanwhile is there, once.
    """
    window = {"before": _position(after) if after is not None else 1 << 62, "limit": limit + 1}
    try:
        with joined.bounded(connection):
            found = _page(connection, where, "num, row", rows.numbered, **window)
        found.sort(reverse=True)
        flows = rows.flow_records("[" + ",".join(row for _, row in found[:limit]) + "]")
        return flows, _next_key([num for num, _ in found], limit)
    except damage.UNREADABLE as error:
        if not is_unreadable(error):
            raise
    nums = _page(connection, where, "num", rows.numbers, **window)
    nums.sort(reverse=True)
    flows, damaged = damage.one_by_one(
        nums[:limit], lambda num: rows.flow_records(_text(connection, "find_number", num=num))
    )
    for num in damaged:
        damage.tell(
            f"flow {damage.name_of(connection, num)!r} is damaged and left out of a list; find says more"
        )
    return flows, _next_key(nums, limit)


def count(connection: sqlite3.Connection, where: FlowFilter) -> dict[TaskStatus, int]:
    """How many flows there are of each status."""
    condition, values = _conditions(where, None)
    if where.statuses:
        condition += " AND status IN (SELECT value FROM json_each(:statuses))"
        values["statuses"] = as_json([status.value for status in where.statuses])
    values["known"] = _KNOWN
    sql = (
        "SELECT json_group_array(json_array("  # noqa: S608 - from fixed parts
        "CASE WHEN status IN (SELECT value FROM json_each(:known)) THEN status END, flows)) FROM "
        f"(SELECT status, count(*) AS flows FROM flows WHERE {condition} GROUP BY status)"
    )
    found, impossible = rows.counts(connection.execute(sql, values).fetchone()[0])
    if impossible:
        damage.tell(f"{impossible} damaged flows have a status that does not exist; they are not counted")
    return found


def _sound_arrivals(
    connection: sqlite3.Connection, statement: str, worker_id: str, after: int
) -> list[Received]:
    """The messages that can be read. A flow with another is parked when it is claimed again."""
    ids = rows.numbers(_text(connection, statement, worker=worker_id, after=after) or "[]")
    found, damaged = damage.one_by_one(ids, lambda id: rows.messages(_text(connection, "message", id=id)))
    for id in damaged:
        damage.tell(f"message {id} of an inbox is damaged and not handed to its flow")
    return found


def _page(
    connection: sqlite3.Connection,
    where: FlowFilter,
    columns: Literal["num", "num, row"],
    read: Callable[[str | None], list[T]],
    **window: int,
) -> list[T]:
    """The newest rows of each status, unsorted. In one statement, which sees one moment."""
    shown = "num" if columns == "num" else "json_array(num, row)"
    parts, values = [], dict[str, Any](window)
    for place, status in enumerate(dict.fromkeys(where.statuses) or (None,)):
        condition, asked = _conditions(where, status, f"status_{place}")
        values |= asked
        parts.append(
            f"SELECT * FROM (SELECT {columns} FROM flow_rows "  # noqa: S608 - from fixed parts
            f"WHERE num < :before AND {condition} ORDER BY num DESC LIMIT :limit)"
        )
    sql = f"SELECT '[' || group_concat({shown}) || ']' FROM ({' UNION ALL '.join(parts)})"  # noqa: S608 - as above
    return read(connection.execute(with_rows(sql), values).fetchone()[0])


def _next_key(nums: list[int], limit: int) -> str | None:
    return str(nums[limit - 1]) if len(nums) > limit > 0 else None


_KNOWN: Final = as_json(status.value for status in TaskStatus)

# The only place where a statement is put together: from these fixed parts, never from data.
_PARTS: Final = {
    "queue": "queue = :queue",
    "version": "version = :version",
    "parent_id": "parent_id = :parent_id",
    "created_after": "created_at > :created_after",
    "created_before": "created_at < :created_before",
}

# A damaged text has no tags, and hides only its own flow.
_HAS_ALL_TAGS: Final = (
    "NOT EXISTS (SELECT 1 FROM json_each(:tags) AS wanted WHERE wanted.value NOT IN "
    "(SELECT value FROM json_each(CASE WHEN json_valid(tags) THEN tags ELSE '[]' END)))"
)


def _conditions(
    where: FlowFilter, status: TaskStatus | None, name: str = "status"
) -> tuple[str, dict[str, Any]]:
    """`name`: under which the status stands among the values."""
    parts, values = ["1"], dict[str, Any]()
    if status is not None:
        parts.append(f"status = :{name}")
        values[name] = status.value
    if len(where.names) == 1:
        parts.append("name = :name")
        values["name"] = where.names[0]
    elif where.names:
        parts.append("name IN (SELECT value FROM json_each(:names))")
        values["names"] = as_json(where.names)
    if where.id_prefix:
        parts.append("id >= :id_prefix AND id < :id_end")
        values |= {"id_prefix": where.id_prefix, "id_end": where.id_prefix + "\U0010ffff"}
    if where.tags:
        parts.append(_HAS_ALL_TAGS)
        values["tags"] = as_json(where.tags)
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
