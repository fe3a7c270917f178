"""Remove an ended flow with those of its descendants that leave with it.

On one server that is one script. A family on a cluster is walked first: it is judged as it is seen, and then removed
member by member, the flow itself last, each of which must still have ended. What a crash leaves behind: the flow with a
part of its family; deleting it again removes the rest.
"""

from __future__ import annotations

from typing import Any

from ergon.core.status import TERMINAL
from ergon.errors import IllegalMove
from ergon.storage.redis import catalog
from ergon.storage.redis.session import Session
from ergon.storage.redis.writes import Write


async def delete(session: Session, flow_id: str) -> bool:
    """Remove a flow and all that belongs to it. False when there is none."""
    if session.partitions.count == 1:
        return await _remove(session, flow_id, alone=False)
    root = await catalog.find(session, flow_id)
    if root is None:
        return False
    if root.status not in TERMINAL:
        raise _not_ended(flow_id, root.status.value)
    family, left_alone = await _walk(session, flow_id)
    for child, parent in left_alone:
        values = (child.encode(), parent.encode())
        await session.write(
            Write[None]("delete", "orphan", child, values, lambda _: None, future=session.future())
        )
    for member in reversed(family[1:]):
        await _remove(session, member, alone=True)
    return await _remove(session, flow_id, alone=True)


async def _walk(session: Session, flow_id: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The family, parents before children; and the children that outlive their parents, each with its parent."""
    family, left_alone = [flow_id], list[tuple[str, str]]()
    for parent in family:
        keys = [(base + "children:" + parent).encode() for base in session.partitions.bases]
        for ids in await session.read([("ZRANGE", key, 0, -1) for key in keys]):
            for id in ids:
                child = await catalog.find(session, id.decode())
                if child is None or child.id in family:
                    continue
                if child.status in TERMINAL:
                    family.append(child.id)
                elif child.close_with_parent:
                    raise _unfinished(flow_id, child.id, child.status.value)
                else:
                    left_alone.append((child.id, parent))
    return family, left_alone


async def _remove(session: Session, flow_id: str, *, alone: bool) -> bool:
    def read(answer: list[Any]) -> bool:
        if answer[0] == b"illegal":
            raise _not_ended(flow_id, answer[1].decode())
        if answer[0] == b"unfinished":
            raise _unfinished(flow_id, answer[1].decode(), answer[2].decode())
        return bool(answer[0] == b"ok")

    values = (flow_id.encode(), b"1" if alone else b"0")
    return await session.write(Write("delete", "delete", flow_id, values, read, future=session.future()))


def _not_ended(flow_id: str, status: str) -> IllegalMove:
    return IllegalMove(f"flow {flow_id!r} is {status}; only a flow that has ended can be deleted")


def _unfinished(flow_id: str, child: str, status: str) -> IllegalMove:
    return IllegalMove(f"flow {flow_id!r} cannot be deleted yet: its child {child} is {status}")
