"""What an act would come to, found by reading only: for dry runs, and to tell whether it was done already.

Each says what the log itself decides in the write; another process may change that between the two.
"""

from __future__ import annotations

from ergon.core.commit import FlowFilter, FlowRecord
from ergon.core.history import EventKind
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog

_ACTIVE = (TaskStatus.PENDING, TaskStatus.SUSPENDED, TaskStatus.RUNNING)
_BACK_OFFS = (EventKind.FLOW_RETRIED, EventKind.STEP_RETRIED)
_CHILDREN_READ = 1_000


async def retry_at_once(log: ExecutionLog, flow: FlowRecord) -> bool:
    """Whether the flow, or a step of it, waits to be tried again."""
    if flow.status not in _ACTIVE:
        return False
    events = await log.history(flow.id)
    told_at = max((event.seq for event in events if event.kind == EventKind.RETRY_NOW), default=0)
    return any(event.seq > told_at and event.kind in _BACK_OFFS and event.at > log.now() for event in events)


async def unfinished_child(log: ExecutionLog, flow: FlowRecord) -> str | None:
    """What keeps an ended flow from being deleted: one of its children that has not ended though it should have."""
    found: list[str] = []
    seen, unvisited = {flow.id}, [flow.id]
    while unvisited:
        after, parent = None, unvisited.pop()
        while True:
            children, after = await log.list(FlowFilter(parent_id=parent), limit=_CHILDREN_READ, after=after)
            family = [child for child in children if child.close_with_parent or child.status.is_terminal]
            found += [f"{child.id} is {child.status}" for child in family if not child.status.is_terminal]
            unvisited += [child.id for child in family if child.id not in seen]
            seen.update(child.id for child in family)
            if after is None:
                break
    return min(found, default=None)
