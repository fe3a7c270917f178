"""Parents and children: what starting a child means, and how its outcome reads."""

from __future__ import annotations

from typing import Any

from ergon.core.codec.objects import split_object
from ergon.core.commit import FlowRecord, IdTaken, NewFlow, Received, read_reason
from ergon.core.failure import describe, rebuild
from ergon.core.history import EventKind
from ergon.core.status import TaskStatus
from ergon.errors import FlowCancelled, FlowIdConflict, NonDeterminismError
from ergon.flows.children import ChildRequest, child_id
from ergon.replay.operations import Operation


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
        tags=request.tags if request.tags is not None else flow.options.tags,
    )


def outcome_of_message(message: Received, flow_id: str) -> tuple[str, str]:
    """The event kind and payload that the message of the child `flow_id` becomes."""
    status, output, reason = _read(message.payload or "{}")
    if status == TaskStatus.COMPLETED:
        return EventKind.CHILD_COMPLETED, output
    if status == TaskStatus.CANCELLED and output == "null":
        return EventKind.CHILD_FAILED, describe(FlowCancelled(flow_id, reason))
    return EventKind.CHILD_FAILED, output


def is_what_was_asked_for(request: ChildRequest, found: IdTaken) -> bool:
    """Whether the flow that an operation started before is the child it asks for now.

    The log compares texts, and one input may be written in several ways: with a set in another order, or before a
    parameter with a default was added or its default changed.
    """
    call = request.call
    same_flow = found.input is not None and found.name == call.flow.name
    return same_flow and call.fits(found.input or "")


def other_child(op: Operation, found: IdTaken) -> NonDeterminismError:
    """Replayed up to the same operation, the flow's code asks for another child than it has started there."""
    started = f"child `{found.name}` as operation {op.id}, started as flow {found.flow_id!r}"
    same = " with another input" if found.name == op.request.call.flow.name else ""
    return NonDeterminismError(expected=started, actual=f"{op}{same}")


def id_taken(found: IdTaken) -> FlowIdConflict:
    """What a flow gets that asks for a child whose id another flow has."""
    if found.input is None:
        return FlowIdConflict(
            f"child id {found.flow_id!r} is taken by another flow, `{found.name}`; choose another id"
        )
    return FlowIdConflict(
        f"child id {found.flow_id!r} is taken by `{found.name}`, which an earlier attempt of this flow started "
        "there with another input; choose an id that differs when the input does"
    )


def refusal(found: IdTaken) -> str:
    """The same for a step body, as if the child had failed with it."""
    return '{"status":"failed","output":' + describe(id_taken(found)) + "}"


def child_outcome(request: ChildRequest, payload: str) -> Any:
    """The result in a child's message; raises the error it failed with."""
    status, output, reason = _read(payload)
    if status == TaskStatus.COMPLETED:
        return request.call.flow.result_decoder.decode(output)
    if status == TaskStatus.CANCELLED and output == "null":
        raise FlowCancelled(request.flow_id, reason)
    raise rebuild(output)


def _read(payload: str) -> tuple[str, str, str]:
    """Status, output as JSON, and why a child was cancelled that has no output: it was killed, or never started."""
    parts = split_object(payload)
    reason = read_reason(parts.get("reason", '""')) or "it was killed"
    return parts.get("status", '""').strip('"'), parts.get("output", "null"), reason
