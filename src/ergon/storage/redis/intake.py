"""What anyone may write: new flows, messages, an operator's acts. Each is one call of the script of the same name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from ergon.core.commit import FlowRecord, Message, NewFlow
from ergon.core.history import Event, EventKind
from ergon.core.status import OPERATORS, TaskStatus
from ergon.errors import FlowNotFound, IllegalMove, LeaseLost
from ergon.storage.redis import catalog
from ergon.storage.redis.session import Session
from ergon.storage.redis.writes import Create, Write, new_flow_fields, pack

_BACK_OFFS: Final = frozenset({EventKind.FLOW_RETRIED, EventKind.STEP_RETRIED})


async def create(session: Session, flow: NewFlow) -> FlowRecord | None:
    """Create a flow. None when that was done, else the flow that has its id."""
    fields = pack(new_flow_fields(flow))
    if flow.parent_id is not None and session.partitions.of(flow.parent_id) != session.partitions.of(flow.id):
        note = (flow.parent_id.encode(), b"%d" % session.partitions.of(flow.id))
        write = Write[None](
            "create", "note_child", flow.parent_id, note, lambda _: None, future=session.future()
        )
        await session.write(write)
    while True:

        def read(answer: list[Any]) -> bool:
            if answer[0] == b"dead":
                owner = flow.owner or ""
                raise LeaseLost(f"flow {flow.id!r} was not created: worker {owner!r} is not alive")
            return bool(answer[0] == b"ok")

        if await session.write(Create("create", "create", flow.id, (fields,), read, future=session.future())):
            return None
        found = await catalog.find(session, flow.id)
        if found is not None:
            return found
        # Deleted in between: the id is free now.


async def send(session: Session, message: Message) -> None:
    """Deliver one message. Repeating a key is fine."""
    flow_id, kind, name, payload, key = message
    fields = pack({"flow": flow_id, "kind": kind, "name": name, "payload": payload, "key": key})

    def read(answer: list[Any]) -> None:
        if answer[0] == b"absent":
            raise FlowNotFound(flow_id)
        if answer[0] == b"ended":
            raise IllegalMove(f"flow {flow_id!r} is {answer[1].decode()}; it takes no {kind} any more")

    await session.write(Write("send", "send", flow_id, (fields,), read, future=session.future()))


async def move(
    session: Session,
    flow_id: str,
    target: TaskStatus,
    *,
    reason: str,
    output: str | None,
    only: Collection[TaskStatus] | None,
) -> FlowRecord:
    """Do an operator's act. Pausing or killing what already is paused or killed changes nothing."""
    allowed = [
        status.value for status in OPERATORS.get(target, frozenset()) if only is None or status in only
    ]
    fields = pack(
        {"flow": flow_id, "target": target.value, "reason": reason, "output": output, "allowed": allowed}
    )

    def read(answer: list[Any]) -> None:
        if answer[0] == b"absent":
            raise FlowNotFound(flow_id)
        if answer[0] == b"illegal":
            status = answer[1].decode()
            raise IllegalMove(f"flow {flow_id!r} is {status}; it cannot be made {target}", status=status)

    await session.write(Write("move", "move", flow_id, (fields,), read, future=session.future()))
    return await _found(session, flow_id)


async def reschedule(
    session: Session, flow_id: str, at: float | None, delay_seconds: float | None
) -> FlowRecord:
    """Give a flow that has not started another start time."""
    fields = pack(
        {
            "flow": flow_id,
            "at": None if at is None else float(at),
            "delay": None if delay_seconds is None else float(delay_seconds),
        }
    )

    def read(answer: list[Any]) -> None:
        if answer[0] == b"absent":
            raise FlowNotFound(flow_id)
        if answer[0] == b"illegal":
            status = answer[1].decode()
            stands = f"has started and is {status}" if answer[2] else f"is {status}"
            raise IllegalMove(
                f"flow {flow_id!r} {stands}; only a flow that has not started can be given another start",
                status=status,
            )

    await session.write(Write("move", "reschedule", flow_id, (fields,), read, future=session.future()))
    return await _found(session, flow_id)


async def retry_now(session: Session, flow_id: str, now: float) -> FlowRecord:
    """End the back-offs of a flow.

    Whether something backs off is read from its history before; the script refuses when that has grown since.
    """

    def read(answer: list[Any]) -> bool:
        if answer[0] == b"absent":
            raise FlowNotFound(flow_id)
        if answer[0] == b"illegal":
            status = answer[1].decode()
            raise IllegalMove(
                f"flow {flow_id!r} is {status}; nothing of it waits to be tried again", status=status
            )
        return bool(answer[0] == b"ok")

    while True:
        history = await catalog.history(session, flow_id, 0, None)
        values = (flow_id.encode(), b"%d" % len(history), b"1" if _backs_off(history, now) else b"0")
        if await session.write(Write("retry", "retry_now", flow_id, values, read, future=session.future())):
            return await _found(session, flow_id)


async def _found(session: Session, flow_id: str) -> FlowRecord:
    flow = await catalog.find(session, flow_id)
    if flow is None:
        raise FlowNotFound(flow_id)  # deleted since
    return flow


def _backs_off(history: list[Event], now: float) -> bool:
    """Only these events can be dated ahead: with the time of the attempt they announce."""
    for event in reversed(history):
        if event.kind == EventKind.RETRY_NOW:
            return False
        if event.kind in _BACK_OFFS and event.at > now:
            return True
    return False
