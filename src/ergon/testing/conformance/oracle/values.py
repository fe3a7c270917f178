"""From the words of an operation to the values that cross the seam, as they are at that moment."""

from __future__ import annotations

from typing import Any, Final

from ergon.core.commit import ChildCancel, Commit, Lease, NewFlow, Settled
from ergon.core.history import Event, EventKind
from ergon.core.status import TaskStatus
from ergon.testing.conformance.oracle.flows import ModelMessage
from ergon.testing.conformance.oracle.model import BACKS_OFF_AT, Model
from ergon.testing.conformance.oracle.sequences import OPS

LATER_SECONDS: Final = 1_000_000.0
"""Until a time that does not come during a test."""


def make_commit(model: Model, prefix: str, now: float, args: dict[str, Any]) -> Commit:
    """The commit that these words mean now."""
    running = [flow for flow in model.flows.by_id.values() if flow.status is TaskStatus.RUNNING]
    flow_id = prefix + args["id"]
    if args["running"] is not None and running:
        flow_id = running[args["running"] % len(running)].id
    flow = model.find(flow_id)
    owner, epoch, last = (flow.owner or "", flow.epoch, flow.last_seq) if flow else ("", 0, 0)
    lease = {"own": Lease(owner, epoch), "old": Lease(owner, epoch - 1), "stranger": Lease("x", epoch)}
    first = last if args["clashes"] and last else last + 1
    events = [
        Event(first + n, EventKind.STEP_COMPLETED, "0:1", "s", "d", f"{epoch}", 1.5, "", 1)
        for n in range(args["events"])
    ]
    if args["backs_off"] and events:
        events[-1] = events[-1]._replace(kind=EventKind.STEP_RETRIED, at=BACKS_OFF_AT)
    messages = flow.messages if flow else []
    unread = [m for m in messages if m.consumed is None]
    taken = [m.consumed for m in messages if m.consumed is not None and m.kind == "signal"]
    consumed = [(unread[0].id, first)] if args["consume"] and unread and events else []
    if args["consume_read"]:
        consumed += [(m.id, first) for m in messages if m.consumed is not None][:1]
    return Commit(
        flow_id,
        lease[args["lease"]],
        tuple(events),
        consumed=tuple(consumed),
        cancels=tuple(_make_cancel(model, prefix, one) for one in args["cancels"]),
        children=tuple(
            make_flow(prefix, now, one, flow_id) for one in args["children"] if prefix + one["id"] != flow_id
        ),
        settled=_make_settled(args, epoch, now, messages) if args["status"] is not None else None,
        returned=(taken[0],) if args["give_back"] and taken and taken[0] is not None else (),
    )


def make_flow(prefix: str, now: float, args: dict[str, Any], parent_id: str | None) -> NewFlow:
    """The new flow that these words mean now."""
    return NewFlow(
        prefix + args["id"],
        prefix + args["name"],
        args["input"],
        queue=args["queue"],
        version=args["version"],
        priority=args["priority"],
        start_at=now - LATER_SECONDS if args["when"] == "past" else None,
        delay_seconds=LATER_SECONDS if args["when"] == "later" else None,
        timeout_seconds=LATER_SECONDS if args["timeout"] else None,
        parent_id=parent_id,
        parent_op=args["op"] if parent_id else None,
        close_with_parent=args.get("close", True),
        tags=args["tags"],
    )


def _make_settled(args: dict[str, Any], epoch: int, now: float, messages: list[ModelMessage]) -> Settled:
    status = TaskStatus(args["status"])
    has_output = status in (TaskStatus.COMPLETED, TaskStatus.FAILED)
    return Settled(
        status,
        output=f'"{epoch}"' if has_output else None,
        wake_at=now + LATER_SECONDS if args["later"] else None,
        reason="" if has_output else "why",
        inbox_seen=max((m.id for m in messages), default=0) if args["seen"] else 0,
    )


def _make_cancel(model: Model, prefix: str, args: dict[str, Any]) -> ChildCancel:
    """Without an operation: of the one that started the flow."""
    flow_id = prefix + args["id"] if args["id"] is not None else None
    flow = model.find(flow_id) if flow_id is not None else None
    started_by = flow.parent_op if flow is not None else None
    return ChildCancel(flow_id, args["op"] or started_by or OPS[1], '"enough"', args["attempt"])
