"""What anyone may read. Each function is one statement, or several that need no common snapshot."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from ergon.core.commit import FlowFilter, FlowRecord, Received, WorkerRecord
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.errors import LogDamaged, UsageError
from ergon.storage.postgres import rows
from ergon.storage.postgres.driver import Connection
from ergon.storage.postgres.packs import events_of
from ergon.storage.postgres.statements import statements, with_columns

logger: Final = logging.getLogger("ergon.storage")
_SQL: Final = statements("catalog.sql")


async def find(connection: Connection, flow_id: str) -> FlowRecord | None:
    """One flow, or None."""
    row = await connection.fetchrow(_SQL["find"], flow_id)
    return None if row is None else rows.flow(row)


async def history(connection: Connection, flow_id: str, after: int, limit: int | None) -> list[Event]:
    """A flow's events after one, in order."""
    found = events_of(await connection.fetch(_SQL["history"], flow_id, after, limit), flow_id)
    if found and found[0].seq <= after:  # in the midst of a pack
        found = [event for event in found if event.seq > after]
    return found[:limit]


async def unread(connection: Connection, flow_id: str) -> list[Received]:
    """A flow's messages that no event accounts for, oldest first."""
    return [rows.message(row) for row in await connection.fetch(_SQL["inbox"], flow_id)]


async def arrivals(
    connection: Connection, worker_id: str, after: int
) -> tuple[int, list[Received], frozenset[int]]:
    """Messages for a worker's flows since a cursor, and the next cursor: a transaction before which all have ended.

    And the ids of those among them that come again, because a transaction before theirs has not ended.
    """
    if after > 0:
        found = await connection.fetch(_SQL["arrivals"], worker_id, after)
    else:
        found = await connection.fetch(_SQL["arrivals_from_start"], worker_id)
    cursor = found[0][0] or after
    there = [row for row in found if row[1] is not None]
    again = frozenset(row[2] for row in there if row[1] >= cursor)
    return cursor, [rows.message(row[2:]) for row in there], again


async def ended_or_parked(
    connection: Connection, flow_ids: Sequence[str]
) -> tuple[list[FlowRecord], list[str]]:
    """Those of the flows that ended or are parked, and the ids that belong to none."""
    ids = list(flow_ids)
    absent = [row[0] for row in await connection.fetch(_SQL["absent"], ids)]
    return [rows.flow(row) for row in await connection.fetch(_SQL["ended_or_parked"], ids)], absent


async def lost(
    connection: Connection, worker_id: str, epochs: Sequence[tuple[str, int]]
) -> list[tuple[str, TaskStatus | None]]:
    """Those of the flows that a worker does not own at this epoch."""
    found = await connection.fetch(_SQL["lost"], worker_id, *rows.columns(epochs, 2))
    return [(row[0], rows.status(row[1])) for row in found]


async def workers(connection: Connection) -> list[WorkerRecord]:
    """Every incarnation on record, newest first."""
    return [rows.worker(row) for row in await connection.fetch(_SQL["workers"])]


async def next_wake(connection: Connection, names: Sequence[str]) -> float | None:
    """When the next flow of these names becomes ready by time."""
    row = await connection.fetchrow(_SQL["next_wake"], list(names))
    return None if row is None else row[0]


async def page(
    connection: Connection, where: FlowFilter, limit: int, after: str | None
) -> tuple[list[FlowRecord], str | None]:
    """Flows newest first, and the key of the next page.

    Each status and each name asked for is read by itself, newest first, and the pages are merged: so a rare one among
    many flows costs no more than a common one. In one statement, which sees one moment: a flow that goes from one of
    the statuses to another meanwhile is neither left out nor there twice.
    """
    before = _position(after) if after is not None else 1 << 62
    parts, values = list[str](), list[Any]()
    for status in dict.fromkeys(where.statuses) or (None,):
        for name in dict.fromkeys(where.names) or (None,):
            sql, asked = page_statement(where, status, name, first=len(values) + 1)
            parts.append(f"({sql})")
            values += [*asked, before, limit + 1]
    found = [*await connection.fetch(" UNION ALL ".join(parts), *values)]
    found.sort(key=_number, reverse=True)
    flows = []
    for row in found[: max(limit, 0)]:
        try:
            flows.append(rows.flow(row[1:]))
        except LogDamaged as error:
            logger.warning("%s. It is left out of a list", error)
    return flows, str(found[limit - 1][0]) if len(found) > limit > 0 else None


def page_statement(
    where: FlowFilter, status: TaskStatus | None, name: str | None, *, first: int = 1
) -> tuple[str, list[Any]]:
    """The newest flows of one status and one name (None: of any), and its values; before which and how many follow.

    `first`: the number of its first value.
    """
    condition, values = _conditions(where, status, name, first=first)
    last = first + len(values)
    few = status is not None or name is not None or where.parent_id is not None or where.id_prefix
    window = "-f.num > -${}::bigint" if few else "f.num < ${}::bigint"  # see the indexes
    sql = with_columns(
        f"SELECT f.num, {{flow}} FROM flows AS f WHERE {window.format(last)} AND {condition} "  # noqa: S608 - from fixed parts
        f"ORDER BY {'-f.num' if few else 'f.num DESC'} LIMIT ${last + 1}::bigint"
    )
    return sql, values


async def count(connection: Connection, where: FlowFilter) -> dict[TaskStatus, int]:
    """How many flows there are of each status."""
    condition, values = _conditions(where, None, None)
    if where.statuses:
        values.append([status.value for status in where.statuses])
        condition += f" AND f.status = ANY (${len(values)}::text[])"
    sql = f"SELECT f.status, count(*) FROM flows AS f WHERE {condition} GROUP BY f.status"  # noqa: S608 - from fixed parts
    found = await connection.fetch(sql, *values)
    return {TaskStatus(row[0]): row[1] for row in found}


# The only place where a statement is put together: from these fixed parts, never from data.
_PARTS: Final = {
    "queue": "f.queue = {}::text",
    "version": "f.version = {}::text",
    "parent_id": "f.parent_id = {}::text",
    "created_after": "f.created_at > {}::float8",
    "created_before": "f.created_at < {}::float8",
}


def _conditions(
    where: FlowFilter, status: TaskStatus | None, name: str | None, *, first: int = 1
) -> tuple[str, list[Any]]:
    parts, values = ["true"], list[Any]()

    def add(part: str, value: Any) -> None:
        values.append(value)
        parts.append(part.format(f"${first + len(values) - 1}"))

    if status is not None:
        add("f.status = {}::text", status.value)
    if name is not None:
        add("f.name = {}::text", name)
    elif where.names:
        add("f.name = ANY ({}::text[])", list(where.names))
    if where.id_prefix:
        add("f.id >= {}::text", where.id_prefix)
        add("f.id < {}::text", where.id_prefix + "\U0010ffff")
    if where.tags:
        add("{}::text[] <@ ARRAY(SELECT json_array_elements_text(f.tags::json))", list(where.tags))
    for field, part in _PARTS.items():
        value = getattr(where, field)
        if value is not None:
            add(part, value)
    return " AND ".join(parts), values


def _number(row: Sequence[Any]) -> int:
    return int(row[0])


def _position(key: str) -> int:
    """The place in the list that a page's key names."""
    if not (key.isascii() and key.isdigit() and len(key) < 19):
        raise UsageError(f"after={key!r} is no key of a page; pass the key that the page before returned")
    return int(key)
