"""Parents and children: what starting a child means, and how its outcome reads."""

from __future__ import annotations

from typing import Any

from ergon.core.codec.objects import split_object
from ergon.core.commit import FlowRecord, NewFlow, Received
from ergon.core.failure import describe, rebuild
from ergon.core.history import EventKind
from ergon.core.status import TaskStatus
from ergon.errors import FlowCancelled
from ergon.flows.children import ChildRequest, child_id


def new_child(parent: FlowRecord, request: ChildRequest, operation: str) -> NewFlow:
    """The flow to create for a child. It runs the parent's version; a detached one has no parent to tell but the id."""
    flow = request.call.flow
    return NewFlow(
        id=request.flow_id or request.id or child_id(parent.id, operation),
        name=flow.name,
        input=request.call.input,
        queue=request.queue or flow.options.queue,
        version=parent.version,
        priority=flow.options.priority or parent.priority,
        timeout_seconds=flow.options.timeout,
        parent_id=parent.id,
        parent_op=operation,
        close_with_parent=not request.detached,
    )


def outcome_of_message(message: Received, flow_id: str) -> tuple[str, str]:
    """The event kind and payload that the message of the child `flow_id` becomes."""
    status, output = _read(message.payload or "{}")
    if status == TaskStatus.COMPLETED:
        return EventKind.CHILD_COMPLETED, output
    if status == TaskStatus.CANCELLED and output == "null":
        return EventKind.CHILD_FAILED, describe(FlowCancelled(flow_id, "it was killed"))
    return EventKind.CHILD_FAILED, output


def outcome_of_record(child: FlowRecord) -> tuple[str, str]:
    """The event kind and payload that an ended child becomes."""
    if child.status is TaskStatus.COMPLETED:
        return EventKind.CHILD_COMPLETED, child.output if child.output is not None else "null"
    if child.output is None:
        return EventKind.CHILD_FAILED, describe(FlowCancelled(child.id, child.reason))
    return EventKind.CHILD_FAILED, child.output


def child_outcome(request: ChildRequest, payload: str) -> Any:
    """The result in a child's message; raises the error it failed with."""
    status, output = _read(payload)
    if status == TaskStatus.COMPLETED:
        return request.call.flow.result_decoder.decode(output)
    if status == TaskStatus.CANCELLED and output == "null":
        raise FlowCancelled(request.flow_id, "it was killed")
    raise rebuild(output)


def _read(payload: str) -> tuple[str, str]:
    parts = split_object(payload)
    return parts.get("status", '""').strip('"'), parts.get("output", "null")
