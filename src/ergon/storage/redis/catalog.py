"""What anyone may read. What must be of one moment is asked of one script; the rest are plain commands in one pipeline.

A damaged key is the business of its flow alone: whoever asks for that flow gets `LogDamaged`, lists leave it out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from ergon.core.commit import FlowRecord, Message, Received, WorkerRecord
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.errors import LogDamaged
from ergon.storage.redis import rows
from ergon.storage.redis.session import Session

logger: Final = logging.getLogger("ergon.storage")
_CURSOR_BITS: Final = 53
_CURSOR_MAX: Final = (1 << _CURSOR_BITS) - 1
_KNOWN: Final = {status.value.encode(): status for status in TaskStatus}


async def find(session: Session, flow_id: str) -> FlowRecord | None:
    """One flow, or None."""
    key = session.partitions.base(flow_id) + "flow:" + flow_id
    kept = await _of(session, flow_id, ("HGETALL", key.encode()))
    try:
        return rows.flow_record(flow_id, kept) if kept else None
    except rows.UNREADABLE as error:
        raise rows.damaged(flow_id, error) from error


async def history(session: Session, flow_id: str, after: int, limit: int | None) -> list[Event]:
    """A flow's events after one, in order."""
    if limit is not None and limit <= 0:
        return []
    first = max(after, 0)
    last = -1 if limit is None else first + limit - 1
    key = session.partitions.base(flow_id) + "events:" + flow_id
    kept = await _of(session, flow_id, ("LRANGE", key.encode(), first, last))
    try:
        return rows.events(kept)
    except rows.UNREADABLE as error:
        raise rows.damaged(flow_id, error) from error


async def unread(session: Session, flow_id: str) -> list[Received]:
    """A flow's messages that no event accounts for, oldest first."""
    asked = session.partitions.call_on(session.partitions.of(flow_id), "read", (b"inbox", flow_id.encode()))
    kept = await _of(session, flow_id, asked)
    try:
        return rows.messages(flow_id, kept)
    except rows.UNREADABLE as error:
        raise rows.damaged(flow_id, error) from error


async def has_key(session: Session, message: Message) -> bool:
    """Tell whether a message with this one's key came before."""
    flow_id, kind, name, _, key = message
    if key is None:
        return False
    field = b"".join(b"%d:%b" % (len(part), part) for part in (kind.encode(), name.encode())) + key.encode()
    keys = session.partitions.base(flow_id) + "keys:" + flow_id
    return bool((await session.read([("HEXISTS", keys.encode(), field)]))[0])


async def arrivals(session: Session, worker_id: str, after: int) -> tuple[int, list[Received]]:
    """Messages for a worker's flows since a cursor, and the next cursor: those of all parts, side by side."""
    count = session.partitions.count
    since = [after] if count == 1 else [after >> _CURSOR_BITS * part & _CURSOR_MAX for part in range(count)]
    calls = [
        session.partitions.call_on(partition, "read", (b"arrivals", worker_id.encode(), b"%d" % one))
        for partition, one in enumerate(since)
    ]
    found: list[Received] = []
    newest: list[int] = []
    for last, flat in await session.read(calls):
        newest.append(int(last))
        for flow_id, row in zip(flat[::2], flat[1::2], strict=True):
            try:
                found.append(rows.message(flow_id.decode(), row))
            except rows.UNREADABLE:
                # Its flow is parked when it is claimed again.
                logger.error("a message in the inbox of flow %r is damaged and not handed to it", flow_id)  # noqa: TRY400
    cursor = sum(last << _CURSOR_BITS * part for part, last in enumerate(newest))
    return max(after, cursor), found


async def ended_or_parked(session: Session, flow_ids: Sequence[str]) -> tuple[list[FlowRecord], list[str]]:
    """Those of the flows that ended or are parked, and the ids that belong to none."""
    records: dict[str, FlowRecord] = {}
    gone: set[str] = set()
    for partition, some in session.partitions.spread(flow_ids, str).items():
        found, absent = await session.ask("ended", partition, *(flow_id.encode() for flow_id in some))
        gone.update(flow_id.decode() for flow_id in absent)
        for raw, kept in zip(found[::2], found[1::2], strict=True):
            flow_id = raw.decode()
            try:
                records[flow_id] = rows.flow_record(flow_id, rows.pairs(kept))
            except rows.UNREADABLE as error:
                raise rows.damaged(flow_id, error) from error
    return [records[id] for id in flow_ids if id in records], [id for id in flow_ids if id in gone]


async def lost(
    session: Session, worker_id: str, epochs: Sequence[tuple[str, int]]
) -> list[tuple[str, TaskStatus | None]]:
    """Those of the flows that a worker does not own at this epoch."""
    found: list[tuple[str, TaskStatus | None]] = []
    for partition, some in session.partitions.spread(epochs, lambda pair: pair[0]).items():
        asked = [part for flow_id, epoch in some for part in (flow_id.encode(), b"%d" % epoch)]
        flat = await session.ask("lost", partition, worker_id.encode(), *asked)
        found += [(id.decode(), _KNOWN.get(status)) for id, status in zip(flat[::2], flat[1::2], strict=True)]
    return found


async def worker(session: Session, worker_id: str) -> WorkerRecord | None:
    """One incarnation, or None."""
    key = session.partitions.bases[0] + "worker:" + worker_id
    kept = (await session.read([("HGETALL", key.encode())]))[0]
    return _worker(worker_id, kept) if kept else None


def _worker(worker_id: str, kept: dict[bytes, bytes]) -> WorkerRecord:
    """One incarnation. A record that somebody changed keeps nobody from reaping the others, nor this one."""
    try:
        return rows.worker_record(kept)
    except rows.UNREADABLE:
        logger.error("the record of worker %r is damaged", worker_id)  # noqa: TRY400
        return rows.changed_worker(worker_id, kept)


async def workers(session: Session) -> list[WorkerRecord]:
    """Every incarnation on record, newest first."""
    return [record for record, _, _ in await workers_and_ends(session)]


async def workers_and_ends(session: Session) -> list[tuple[WorkerRecord, float, bool]]:
    """The same, each with the seconds of its lease, and whether it ended and some part has yet to know."""
    base = session.partitions.bases[0]
    ids: list[bytes] = (await session.read([("ZRANGE", base + "workers", 0, -1)]))[0]
    if not ids:
        return []
    kept = await session.read([("HGETALL", (base + "worker:").encode() + id) for id in reversed(ids)])
    found = zip(reversed(ids), kept, strict=True)
    return [
        (_worker(id.decode(), one), rows.lease_seconds(one), b"unfinished" in one) for id, one in found if one
    ]


async def next_wake(session: Session, names: Sequence[str]) -> float | None:
    """When the next flow of these names becomes ready by time."""
    asked = [
        ("ZRANGE", (base + "due:" + name).encode(), 0, 0, "WITHSCORES")
        for base in session.partitions.bases
        for name in names
    ]
    if not asked:
        return None
    times = [float(first[0][1]) for first in await session.read(asked) if first]
    return min(times, default=None)


async def _of(session: Session, flow_id: str, command: tuple[Any, ...]) -> Any:
    """Read keys of one flow."""
    try:
        return (await session.read([command]))[0]
    except LogDamaged as error:
        if error.flow_id is None and "is not what this log writes" in str(error):
            raise rows.damaged(flow_id, error) from error
        raise
