"""What anyone may write: new flows, messages, an operator's acts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from ergon.core.commit import FlowRecord, Message, MessageKind, NewFlow
from ergon.core.history import EventKind
from ergon.core.start import start_of
from ergon.core.status import TERMINAL, TaskStatus, may_move
from ergon.errors import FlowNotFound, IllegalMove, LeaseLost
from ergon.storage.postgres import ended, inbox, leases, locks, rows
from ergon.storage.postgres.statements import statements
from ergon.storage.postgres.transaction import Transaction

_SQL: Final = statements("intake.sql")
_BACK_OFFS: Final = [EventKind.FLOW_RETRIED, EventKind.STEP_RETRIED]
_REPEATABLE: Final = frozenset({TaskStatus.PAUSED, TaskStatus.CANCELLED})


async def insert(tx: Transaction, flows: Sequence[NewFlow]) -> set[str]:
    """Insert flows; return the ids of those that were new. Owners are taken for alive: see `owners_alive`."""
    if not flows:
        return set()
    values = new_rows(tx, flows)
    return {row[0] for row in await tx.write_rows(_SQL["insert"], *rows.columns(values, 20))}


def new_rows(tx: Transaction, flows: Sequence[NewFlow]) -> list[tuple[Any, ...]]:
    """The rows of new flows, in the order of their ids."""
    return [_columns(tx, flow) for flow in sorted(flows, key=_id)]


async def owners_alive(tx: Transaction, flows: Sequence[NewFlow]) -> set[str]:
    """Those who own flows from the start and are alive, and stay so until the transaction ends.

    Before any flow is locked: whoever declares a worker dead locks the worker first.
    """
    owners = [flow.owner for flow in flows if flow.owner is not None]
    return await leases.alive(tx, owners) if owners else set()


def not_created(flow: NewFlow) -> LeaseLost:
    """Say why a flow was not created though its id is free."""
    owner = flow.owner or ""
    return LeaseLost(f"flow {flow.id!r} was not created: worker {owner!r} is not alive")


async def find(tx: Transaction, flow_ids: Sequence[str]) -> dict[str, FlowRecord]:
    """Read flows inside the transaction."""
    return {row[0]: rows.flow(row) for row in await tx.rows(_SQL["find"], list(flow_ids))}


async def send(tx: Transaction, messages: list[Message]) -> bool:
    """Deliver messages to flows that are locked. False when at least one was not inserted."""
    done = await inbox.deliver(tx, messages) == len(messages)
    await ended.tell_relatives(tx)
    return done


async def send_alone(tx: Transaction, message: Message) -> None:
    """Deliver one message, or raise why not. Repeating a key is fine."""
    await locks.lock(tx, [message.flow_id])
    if await send(tx, [message]) or await inbox.has_key(tx.connection, message):
        return
    flow = await _find(tx, message.flow_id)
    raise IllegalMove(f"flow {message.flow_id!r} is {flow.status}; it takes no {message.kind} any more")


async def move(
    tx: Transaction,
    flow_id: str,
    target: TaskStatus,
    *,
    reason: str,
    output: str | None,
    only: Collection[TaskStatus] | None,
) -> FlowRecord:
    """Do an operator's act. Pausing or killing what already is paused or killed changes nothing."""
    await locks.lock(tx, [flow_id], [flow_id] if target is TaskStatus.CANCELLED else [])
    flow = await _find(tx, flow_id)
    if flow.status is target and target in _REPEATABLE:
        return flow
    if not may_move(flow.status, target) or (only is not None and flow.status not in only):
        raise IllegalMove(
            f"flow {flow_id!r} is {flow.status}; it cannot be made {target}", status=flow.status.value
        )
    if flow.status is TaskStatus.FAILED:
        await tx.write(_SQL["note_retry"], flow_id, EventKind.FLOW_RETRIED, tx.now)
    await tx.write(_SQL["move"], flow_id, target.value, rows.kept(reason), output, tx.now)
    if target is not TaskStatus.PENDING:
        tx.settled[flow_id] = None
    if target is TaskStatus.CANCELLED:
        tx.ended.append(flow_id)
        await ended.tell_relatives(tx)
    moved = await _find(tx, flow_id)
    if moved.wake_at is not None:
        tx.wakes(moved.wake_at)
    elif target is TaskStatus.PENDING:
        tx.ready = True
    return moved


async def reschedule(
    tx: Transaction, flow_id: str, at: float | None, delay_seconds: float | None
) -> FlowRecord:
    """Give a flow that has not started another start time."""
    due = tx.now + delay_seconds if delay_seconds is not None else at if at is not None else tx.now
    changed = await tx.write(_SQL["reschedule"], flow_id, due, tx.now)
    flow = await _find(tx, flow_id)
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


async def retry_now(tx: Transaction, flow_id: str) -> FlowRecord:
    """End the back-offs of a flow."""
    await locks.lock(tx, [flow_id])
    flow = await _find(tx, flow_id)
    active = flow.status in (TaskStatus.PENDING, TaskStatus.SUSPENDED, TaskStatus.RUNNING)
    row = await tx.one(_SQL["backs_off"], flow_id, _BACK_OFFS, tx.now) if active else None
    if row is None or not row[0]:
        raise IllegalMove(
            f"flow {flow_id!r} is {flow.status}; nothing of it waits to be tried again",
            status=flow.status.value,
        )
    if flow.status is TaskStatus.RUNNING:
        await inbox.deliver(tx, [Message(flow_id, MessageKind.RETRY_NOW, "")])
        return flow
    await tx.write(_SQL["note_retry_now"], flow_id, EventKind.RETRY_NOW, tx.now)
    await tx.write(_SQL["wake_to_retry"], flow_id, tx.now)
    tx.ready = True
    return await _find(tx, flow_id)


async def delete(tx: Transaction, flow_id: str) -> bool:
    """Remove an ended flow and all that belongs to it."""
    family: list[str] = []
    while True:  # ends: each round locks more of a family that no longer grows
        found = await tx.rows(_SQL["family"], flow_id)
        if {row[0] for row in found} <= set(family):
            break
        family = [row[0] for row in found]
        await locks.lock(tx, family)
    standing: dict[str, str] = {id: status for id, status in found}  # noqa: C416 - it tells the types
    if flow_id not in standing:
        return False
    if standing[flow_id] not in TERMINAL:
        raise IllegalMove(
            f"flow {flow_id!r} is {standing[flow_id]}; only a flow that has ended can be deleted"
        )
    unfinished = next((f"{id} is {status}" for id, status in found if status not in TERMINAL), None)
    if unfinished is not None:
        raise IllegalMove(f"flow {flow_id!r} cannot be deleted yet: its child {unfinished}")
    for statement in ("delete_events", "delete_inbox", "delete_flows", "leave_alone"):
        await tx.write(_SQL[statement], list(standing))
    return True


async def _find(tx: Transaction, flow_id: str) -> FlowRecord:
    found = await find(tx, [flow_id])
    if flow_id not in found:
        raise FlowNotFound(flow_id)
    return found[flow_id]


def _stands(flow: FlowRecord) -> str:
    return f"is {flow.status}" if flow.started_at is None else f"has started and is {flow.status}"


def _id(flow: NewFlow) -> str:
    return flow.id


def _columns(tx: Transaction, flow: NewFlow) -> tuple[Any, ...]:
    start = start_of(flow, tx.now)
    if start.wake_at is not None:
        tx.wakes(start.wake_at)
    elif start.owner is None:
        tx.ready = True
    return (
        flow.id, flow.name, start.status, flow.queue, flow.version, flow.priority, flow.input, tx.now,
        start.started_at, start.ready_at, start.wake_at, flow.timeout_seconds, start.deadline_at, start.owner,
        start.claims, start.claimed_seq, flow.parent_id,
        flow.parent_op, flow.close_with_parent, rows.as_json(sorted({*flow.tags})) if flow.tags else rows.NO_TAGS,
    )  # fmt: skip
