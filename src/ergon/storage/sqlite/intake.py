"""What anyone may write: new flows, messages, an operator's acts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from ergon.core.commit import ClaimedFlow, FlowRecord, Lease, Message, MessageKind, NewFlow, make_record
from ergon.core.history import EventKind
from ergon.core.start import start_of
from ergon.core.status import TERMINAL, TaskStatus, may_move
from ergon.errors import FlowNotFound, IllegalMove, LeaseLost
from ergon.storage.sqlite import damage, ended, inbox, rows
from ergon.storage.sqlite.statements import NULL, Bulk, statements
from ergon.storage.sqlite.transaction import Transaction, as_json

_SQL: Final = statements("intake.sql")
_INSERT: Final = Bulk(_SQL["insert"], 20)
_BACK_OFFS: Final = as_json((EventKind.FLOW_RETRIED, EventKind.STEP_RETRIED))
FIRST: Final = (_INSERT.text(1),)
"""What every flow needs: see `priming.py`."""
_REPEATABLE: Final = frozenset({TaskStatus.PAUSED, TaskStatus.CANCELLED})


def insert(tx: Transaction, flows: list[NewFlow]) -> int:
    """Insert flows; return how many. The others' ids exist, or their owner is not alive."""
    values: list[Any] = []
    for flow in flows:
        values += _columns(tx, flow)
    return _INSERT.run(tx.connection, values)


def create_alone(tx: Transaction, flow: NewFlow) -> FlowRecord | None:
    """Insert one flow. None when that was done, else the flow that has its id."""
    if insert(tx, [flow]):
        return None
    found = find(tx, flow.id)
    if found is None:
        owner = flow.owner or ""
        raise LeaseLost(f"flow {flow.id!r} was not created: worker {owner!r} is not alive")
    return found


def claimed(tx: Transaction, flows: Sequence[NewFlow]) -> list[ClaimedFlow]:
    """What a claim would bring of flows that this transaction created under an owner: they need not be read."""
    (epochs_from,) = tx.one(_SQL["epochs_from"])
    brought: list[ClaimedFlow] = []
    for flow in flows:
        start = start_of(flow, tx.now)
        assert start.owner is not None, "only flows that name an owner"
        epoch = epochs_from + start.claims
        record = make_record((
            flow.id, flow.name, TaskStatus.RUNNING, flow.queue, flow.version, flow.priority, flow.input, None, "",
            tx.now, start.started_at, None, start.wake_at, start.deadline_at, start.owner, epoch, 0,
            flow.parent_id, flow.parent_op, flow.close_with_parent,
            tuple(sorted({*flow.tags})) if flow.tags else (),
        ))  # fmt: skip
        brought.append(ClaimedFlow(record, Lease(start.owner, epoch), [], []))
    return brought


def find(tx: Transaction, flow_id: str) -> FlowRecord | None:
    """Read one flow inside the transaction. Raises `LogDamaged`."""
    with damage.of(flow_id):
        row = tx.one(_SQL["find"], flow=flow_id)
        return rows.flow_records(row[0])[0] if row is not None else None


def send(tx: Transaction, messages: list[Message]) -> bool:
    """Deliver messages. False when at least one was not inserted."""
    done = inbox.deliver(tx, messages) == len(messages)
    ended.tell_relatives(tx)
    return done


def send_alone(tx: Transaction, message: Message) -> None:
    """Deliver one message, or raise why not. Repeating a key is fine."""
    if send(tx, [message]) or inbox.has_key(tx.connection, message):
        return
    flow = find(tx, message.flow_id)
    if flow is None:
        raise FlowNotFound(message.flow_id)
    raise IllegalMove(f"flow {message.flow_id!r} is {flow.status}; it takes no {message.kind} any more")


def move(
    tx: Transaction,
    flow_id: str,
    target: TaskStatus,
    *,
    reason: str,
    output: str | None,
    only: Collection[TaskStatus] | None,
) -> FlowRecord:
    """Do an operator's act. Pausing or killing what already is paused or killed changes nothing."""
    flow = find(tx, flow_id)
    if flow is None:
        raise FlowNotFound(flow_id)
    if flow.status is target and target in _REPEATABLE:
        return flow
    if not may_move(flow.status, target) or (only is not None and flow.status not in only):
        raise IllegalMove(
            f"flow {flow_id!r} is {flow.status}; it cannot be made {target}", status=flow.status.value
        )
    if flow.status is TaskStatus.FAILED:
        tx.run(_SQL["note_retry"], flow=flow_id, kind=EventKind.FLOW_RETRIED, now=tx.now)
    tx.run(_SQL["move"], flow=flow_id, status=target.value, reason=reason, output=output, now=tx.now)
    if target is not TaskStatus.PENDING:
        tx.settled[flow_id] = None
    if target is TaskStatus.CANCELLED:
        tx.ended.append(flow_id)
        ended.tell_relatives(tx)
    moved = find(tx, flow_id)
    assert moved is not None
    if moved.wake_at is not None:
        tx.wakes(moved.wake_at)
    elif target is TaskStatus.PENDING:
        tx.ready = True
    return moved


def reschedule(tx: Transaction, flow_id: str, at: float | None, delay_seconds: float | None) -> FlowRecord:
    """Give a flow that has not started another start time."""
    due = tx.now + delay_seconds if delay_seconds is not None else at if at is not None else tx.now
    changed = tx.run(_SQL["reschedule"], flow=flow_id, at=due, now=tx.now)
    flow = find(tx, flow_id)
    if flow is None:
        raise FlowNotFound(flow_id)
    if not changed:
        raise IllegalMove(
            f"flow {flow_id!r} {_stands(flow)}; only a flow that has not started can be given another start",
            status=flow.status.value,
        )
    if flow.wake_at is not None:
        tx.wakes(flow.wake_at)
    elif flow.status is TaskStatus.PENDING:
        tx.ready = True
    return flow


def _stands(flow: FlowRecord) -> str:
    return f"is {flow.status}" if flow.started_at is None else f"has started and is {flow.status}"


def retry_now(tx: Transaction, flow_id: str) -> FlowRecord:
    """End the back-offs of a flow."""
    flow = find(tx, flow_id)
    if flow is None:
        raise FlowNotFound(flow_id)
    active = flow.status in (TaskStatus.PENDING, TaskStatus.SUSPENDED, TaskStatus.RUNNING)
    if not active or not tx.one(_SQL["backs_off"], flow=flow_id, kinds=_BACK_OFFS, now=tx.now)[0]:
        raise IllegalMove(
            f"flow {flow_id!r} is {flow.status}; nothing of it waits to be tried again",
            status=flow.status.value,
        )
    if flow.status is TaskStatus.RUNNING:
        inbox.deliver(tx, [Message(flow_id, MessageKind.RETRY_NOW, "")])
        return flow
    tx.run(_SQL["note_retry_now"], flow=flow_id, kind=EventKind.RETRY_NOW, now=tx.now)
    tx.run(_SQL["wake_to_retry"], flow=flow_id, now=tx.now)
    tx.ready = True
    moved = find(tx, flow_id)
    assert moved is not None
    return moved


def delete(tx: Transaction, flow_id: str) -> bool:
    """Remove an ended flow and all that belongs to it."""
    flow = find(tx, flow_id)
    if flow is None:
        return False
    if flow.status not in TERMINAL:
        raise IllegalMove(f"flow {flow_id!r} is {flow.status}; only a flow that has ended can be deleted")
    family, unfinished = tx.one(_SQL["family"], flow=flow_id)
    if unfinished is not None:
        raise IllegalMove(f"flow {flow_id!r} cannot be deleted yet: its child {unfinished}")
    for statement in ("begin_lives", "delete_events", "delete_inbox", "delete_flows", "leave_alone"):
        tx.run(_SQL[statement], flows=family)
    return True


def _columns(tx: Transaction, flow: NewFlow) -> list[Any]:
    start = start_of(flow, tx.now)
    if start.wake_at is not None:
        tx.wakes(start.wake_at)
    elif start.owner is None:
        tx.ready = True
    columns = (
        flow.id, flow.name, start.status, flow.queue, flow.version, flow.priority, flow.input, tx.now,
        start.started_at, start.ready_at, start.wake_at, flow.timeout_seconds, start.deadline_at, start.owner,
        start.claims, start.claimed_seq, flow.parent_id,
        flow.parent_op, int(flow.close_with_parent), as_json(sorted({*flow.tags})) if flow.tags else rows.NO_TAGS,
    )  # fmt: skip
    return [NULL if column is None else column for column in columns]
