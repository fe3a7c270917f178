"""Parents and children: what starting a child means, and how its outcome reads."""

from __future__ import annotations

from typing import Any, NamedTuple

from ergon.core.codec import decoder_for, encode
from ergon.core.codec.objects import split_object
from ergon.core.commit import FlowRecord, IdTaken, NewFlow, read_reason
from ergon.core.failure import describe, rebuild
from ergon.core.history import EventKind
from ergon.core.status import TaskStatus
from ergon.errors import FlowCancelled, FlowIdConflict, NonDeterminismError
from ergon.flows.children import ChildRequest, child_id
from ergon.replay.operations import Operation, OperationKind


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


class ChildEnd(NamedTuple):
    """How a child ended, and which one it was: an operation may have started another than it asks for now."""

    flow_id: str
    name: str
    input: str
    """JSON."""
    status: str
    output: str
    """JSON: the result, or the failure; null when it was killed, or never started."""
    reason: str
    """JSON: why a child was cancelled that has no output."""

    @classmethod
    def read(cls, payload: str | None) -> ChildEnd:
        """What the log tells the parent."""
        parts = split_object(payload or "{}")
        flow_id, name = (_text.decode(parts[each]) for each in ("flow_id", "name"))
        status = _text.decode(parts["status"])
        return cls(flow_id, name, parts["input"], status, parts["output"], parts.get("reason", '""'))

    @property
    def outcome(self) -> str:
        """For the history of a step body, which knows the child by its wait."""
        told = f'"status":"{self.status}","output":{self.output},"reason":{self.reason}'
        return f'{{"flow_id":{encode(self.flow_id)},{told}}}'


_text = decoder_for(str)


def flow_id_of(outcome: str | None) -> str:
    """Which child had this outcome, where that is known: not of one that was never started."""
    flow_id = split_object(outcome or "{}").get("flow_id")
    return _text.decode(flow_id) if flow_id is not None else ""


def event_of(end: ChildEnd) -> tuple[str, str]:
    """The event kind and payload that the end of a child becomes."""
    if end.status == TaskStatus.COMPLETED:
        return EventKind.CHILD_COMPLETED, end.output
    if end.status == TaskStatus.CANCELLED and end.output == "null":
        return EventKind.CHILD_FAILED, describe(FlowCancelled(end.flow_id, _why(end.reason)))
    return EventKind.CHILD_FAILED, end.output


def is_what_was_asked_for(op: Operation, found: IdTaken | ChildEnd) -> bool:
    """Whether the flow that an operation started before is the child it asks for now; it may be a step now.

    The log compares texts, and one input may be written in several ways: with a set in another order, or before a
    parameter with a default was added or its default changed.
    """
    if not asks_for_child(op, found.flow_id):
        return False
    call = op.request.call
    return found.name == call.flow.name and found.input is not None and call.fits(found.input)


def asks_for_child(op: Operation, flow_id: str) -> bool:
    """Whether an operation asks for a child of this id."""
    return op.kind == OperationKind.CHILD and op.request.flow_id == flow_id


def other_child(op: Operation, found: IdTaken | ChildEnd) -> NonDeterminismError:
    """Replayed up to the same operation, the flow's code asks for another child than it has started there."""
    started = f"child `{found.name}` as operation {op.id}, started as flow {found.flow_id!r}"
    differs = ""
    if op.kind == OperationKind.CHILD:
        if found.flow_id != op.request.flow_id:
            differs = f" as flow {op.request.flow_id!r}"
        elif found.name == op.request.call.flow.name:
            differs = " with another input"
    return NonDeterminismError(expected=started, actual=f"{op}{differs}")


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
    """The result in what a step body's history keeps of a child; raises the error it failed with."""
    parts = split_object(payload)
    status, output = parts.get("status", '""').strip('"'), parts.get("output", "null")
    if status == TaskStatus.COMPLETED:
        return request.call.flow.result_decoder.decode(output)
    if status == TaskStatus.CANCELLED and output == "null":
        raise FlowCancelled(request.flow_id, _why(parts.get("reason", '""')))
    raise rebuild(output)


def has_completed(outcome: str | None) -> bool:
    """Whether what a step body's history keeps of a child says that it returned."""
    return split_object(outcome or "{}").get("status", "") == f'"{TaskStatus.COMPLETED}"'


def _why(reason: str) -> str:
    return read_reason(reason) or "it was killed"
