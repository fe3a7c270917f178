"""What a flow waits for, as it was written down now and then, brought up to date by its history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ergon.core.codec import encode
from ergon.core.commit import FlowRecord
from ergon.core.history import Event, EventKind, split_wait
from ergon.core.status import TaskStatus
from ergon.errors import LogDamaged
from ergon.executor.failure_lines import failure_line
from ergon.executor.sentences import read_waits
from ergon.storage.log import ExecutionLog

_LEAVE_OPEN: Final = frozenset(
    {EventKind.STEP_STARTED, EventKind.STEP_RETRIED, EventKind.STEP_WAITED, EventKind.SIGNAL_RETURNED}
)
"""Events of a step that is not over."""


def up_to_date(record: FlowRecord, history: Sequence[Event], now: float) -> str:
    """The flow's `reason`: of one that runs without what is over by now, and with the back-offs that began since.

    Back-offs come with the attempt that failed and its error.
    """
    due: dict[str, Event] = {}
    failed: dict[str, Event] = {}
    over: set[str] = set()
    for event in history:
        if event.kind == EventKind.FLOW_RETRIED:
            due.clear()
            over.clear()
            failed = {"": event}
        elif event.kind == EventKind.RETRY_NOW:
            due.clear()
        elif event.kind == EventKind.STEP_RETRIED:
            failed[event.op] = due[event.op] = event
        elif event.op:
            due.pop(split_wait(event.op)[0], None)
            if event.kind not in _LEAVE_OPEN:
                over.add(event.op)
    waits = list(read_waits(record.reason))
    if record.status is TaskStatus.RUNNING:
        due = {op: event for op, event in due.items() if event.at > now}
        waits = [wait for wait in waits if wait.get("op") not in due and wait.get("op") not in over]
        waits += [
            {"kind": "retry", "name": event.name, "op": event.op, "due": event.at} for event in due.values()
        ]
    told = [_with_failure(wait, failed) for wait in waits]
    return encode(told) if told else ""


async def now_of(log: ExecutionLog, record: FlowRecord) -> FlowRecord:
    """The record with its `reason` up to date, for whoever tells of it. Reads the history only where one is written."""
    if not record.reason or not (record.status is TaskStatus.RUNNING or '"retry"' in record.reason):
        return record
    try:
        history = await log.history(record.id)
    except LogDamaged:  # a list is no place for that: whoever asks for this flow is told
        return record
    return record._replace(reason=up_to_date(record, history, log.now()))


def _with_failure(wait: dict[str, Any], failed: dict[str, Event]) -> dict[str, Any]:
    event = failed.get(str(wait.get("op")))
    if wait.get("kind") != "retry" or event is None:
        return wait
    return {**wait, "failed_attempt": event.attempt, "error": failure_line(event.payload)}
