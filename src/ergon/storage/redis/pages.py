"""Lists and counts of flows, narrowed by a filter.

Flows are found newest first in the smallest index that the filter names, and judged by their own hashes, a few hundred
at a time: an index that says something else for a moment shows nothing wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from ergon.core.commit import FlowFilter, FlowRecord
from ergon.core.status import TaskStatus
from ergon.errors import UsageError
from ergon.storage.redis import rows
from ergon.storage.redis.catalog import logger
from ergon.storage.redis.session import Session

_CHUNK: Final = 300


class _Place(NamedTuple):
    """A flow in the list: by number, then by part."""

    number: int
    partition: int
    flow_id: bytes


async def page(
    session: Session, where: FlowFilter, limit: int, after: str | None
) -> tuple[list[FlowRecord], str | None]:
    """Flows newest first, and the key of the next page."""
    before = _position(after, session.partitions.count) if after is not None else None
    found: list[FlowRecord] = []
    last: _Place | None = None
    if limit <= 0:
        return [], None
    async for place, flow in _flows(session, where, before, limit + 1):
        if len(found) == limit:
            assert last is not None
            return found, str(last.number * session.partitions.count + last.partition)
        found.append(flow)
        last = place
    return found, None


async def count(session: Session, where: FlowFilter) -> dict[TaskStatus, int]:
    """How many flows there are of each status."""
    statuses = list(dict.fromkeys(where.statuses)) or list(TaskStatus)
    found: dict[TaskStatus, int] = {}
    if where == FlowFilter(statuses=where.statuses):
        bases = session.partitions.bases
        asked = [("ZCARD", f"{base}status:{status.value}") for status in statuses for base in bases]
        numbers = await session.read(asked)
        for place, number in enumerate(numbers):
            status = statuses[place // len(bases)]
            found[status] = found.get(status, 0) + number
    else:
        async for _, flow in _flows(session, where, None, _CHUNK, is_whole=False):
            found[flow.status] = found.get(flow.status, 0) + 1
    return {status: number for status, number in found.items() if number}


async def _flows(
    session: Session, where: FlowFilter, before: _Place | None, wanted: int, *, is_whole: bool = True
) -> AsyncIterator[tuple[_Place, FlowRecord]]:
    """Every flow that fits, newest first; unless `is_whole`, without its input and output, which may be large."""
    chunk = min(max(wanted, 20), _CHUNK)
    while True:
        places = await _places(session, _indexes(where), before, chunk)
        if not places:
            return
        bases = session.partitions.bases
        keys = [(bases[place.partition] + "flow:").encode() + place.flow_id for place in places]
        if is_whole:
            kept = await session.read([("HGETALL", key) for key in keys])
        else:
            columns = await session.read([("HMGET", key, *rows.SMALL) for key in keys])
            kept = [rows.without_values(some) for some in columns]
        for place, one in zip(places, kept, strict=True):
            if not one:
                continue  # deleted since
            try:
                flow = rows.flow_record(place.flow_id.decode(), one)
            except rows.UNREADABLE:
                logger.error("flow %r is damaged and left out of a list; find says more", place.flow_id)
                continue
            if _fits(flow, where):
                yield place, flow
        before, chunk = places[-1], _CHUNK


async def _places(session: Session, indexes: list[str], before: _Place | None, chunk: int) -> list[_Place]:
    """The newest flows of some indexes."""
    bases = session.partitions.bases
    asked, of = [], []
    for partition, base in enumerate(bases):
        for index in indexes:
            # Those of the same number, in parts before this one, come later in the list.
            top = (
                "+inf" if before is None else f"{'(' if partition >= before.partition else ''}{before.number}"
            )
            asked.append(
                ("ZREVRANGEBYSCORE", (base + index).encode(), top, "-inf", "WITHSCORES", "LIMIT", 0, chunk)
            )
            of.append(partition)
    found = {
        _Place(int(number), partition, flow_id)
        for partition, some in zip(of, await session.read(asked), strict=True)
        for flow_id, number in some
    }
    return sorted(found, reverse=True)[:chunk]


def _indexes(where: FlowFilter) -> list[str]:
    if where.parent_id is not None:
        return [f"children:{where.parent_id}"]
    if where.statuses:
        return [f"status:{status.value}" for status in dict.fromkeys(where.statuses)]
    if where.names:
        return [f"name:{name}" for name in dict.fromkeys(where.names)]
    return ["flows"]


def _fits(flow: FlowRecord, where: FlowFilter) -> bool:
    return (
        (not where.statuses or flow.status in where.statuses)
        and (not where.names or flow.name in where.names)
        and (where.queue is None or flow.queue == where.queue)
        and (where.version is None or flow.version == where.version)
        and set(where.tags) <= set(flow.tags)
        and (where.parent_id is None or flow.parent_id == where.parent_id)
        and (not where.id_prefix or flow.id.startswith(where.id_prefix))
        and (where.created_after is None or flow.created_at > where.created_after)
        and (where.created_before is None or flow.created_at < where.created_before)
    )


def _position(key: str, partitions: int) -> _Place:
    """The place in the list that a page's key names."""
    if not (key.isascii() and key.isdigit() and len(key) < 22):
        raise UsageError(f"after={key!r} is no key of a page; pass the key that the page before returned")
    number, partition = divmod(int(key), partitions)
    return _Place(number, partition, b"")
