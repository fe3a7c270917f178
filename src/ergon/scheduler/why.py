"""`why`: one sentence that says what a flow waits for, and how one can tell."""

from __future__ import annotations

from typing import Any, Final

from ergon.core.commit import FlowRecord, MessageKind, WorkerRecord
from ergon.core.names import near
from ergon.core.status import TaskStatus
from ergon.core.versions import VersionSet
from ergon.errors import FlowNotFound
from ergon.executor.failure_lines import failure_line
from ergon.executor.sentences import clock_time, one_line, read_waits, waits_sentence
from ergon.scheduler.waits import up_to_date
from ergon.storage.log import ExecutionLog
from ergon.storage.process import state_of

GENERATIONS_MAX: Final = 5
"""A flow that waits for a child that waits for a child: so many are told of."""


async def why(log: ExecutionLog, flow_id: str) -> str:
    """Say in one sentence why the flow is where it is, and the child it waits for. Raises `FlowNotFound`."""
    told: list[str] = []
    waited_for: str | None = flow_id
    while waited_for is not None and len(told) < GENERATIONS_MAX:
        record = await log.find(waited_for)
        if record is None:
            if told:
                break
            raise FlowNotFound(flow_id)
        told.append(await _why_one(log, record))
        waits = read_waits(record.reason)
        is_child = record.status in (TaskStatus.SUSPENDED, TaskStatus.RUNNING) and len(waits) == 1
        waited_for = waits[0].get("flow_id") if is_child else None
    return "; ".join(told)


async def _why_one(log: ExecutionLog, record: FlowRecord) -> str:
    flow_id = record.id
    known = await log.workers()
    workers = [worker for worker in known if state_of(worker, log.now()) in ("alive", "draining")]
    inbox = await log.inbox(flow_id)
    unread = [message.name for message in inbox if message.kind == MessageKind.SIGNAL]
    owner = next((worker for worker in known if worker.id == record.owner), None)
    if record.status is TaskStatus.RUNNING and owner not in workers:
        sentence = _left_behind(record, owner, workers)
    else:
        if record.status is TaskStatus.RUNNING or '"retry"' in record.reason:
            record = record._replace(reason=up_to_date(record, await log.history(flow_id), log.now()))
        sentence = _SENTENCES[record.status](record, workers, log.now())
    if unread and record.status is TaskStatus.SUSPENDED:
        sentence += f" (unread signals: {', '.join(sorted(set(unread))[:5])})"
    if not record.status.is_terminal and any(message.kind == MessageKind.CANCEL for message in inbox):
        sentence += "; it is asked to cancel, which it will hear when it runs"
    if record.claims_stalled and record.status in (TaskStatus.PENDING, TaskStatus.RUNNING):
        times = "once" if record.claims_stalled == 1 else f"{record.claims_stalled} times in a row"
        sentence += f"; its worker died {times} while running it and nothing new was recorded"
        sentence += ": perhaps it kills them" if record.claims_stalled > 1 else ""
    return f"flow {flow_id!r} {sentence}"


def _pending(record: FlowRecord, workers: list[WorkerRecord], now: float) -> str:
    if record.wake_at is not None and record.wake_at > now:
        later = f"is scheduled to start at {clock_time(record.wake_at)}"
        missing = missing_for(record, workers) if workers else None
        return later + (f"; as of now {missing}" if missing else "")
    if not workers:
        return "is ready, but no worker is alive: start one that runs its code"
    missing = missing_for(record, workers)
    if missing is not None:
        return f"is ready, but {missing}"
    able = next(worker for worker in workers if _takes(worker, record))
    return f"is ready and will be claimed by {able.name!r} as soon as it has room"


def missing_for(record: FlowRecord, workers: list[WorkerRecord]) -> str | None:
    """What keeps every one of these workers from taking the flow; None: nothing keeps one of them."""
    able = [worker for worker in workers if record.name in worker.flows]
    if not able:
        names = ", ".join(sorted({worker.name for worker in workers}))
        hint = near(
            record.name, (name for worker in workers for name in worker.flows), ask="; did you mean `{}`?"
        )
        return f"no live worker has code for flow `{record.name}`{hint} (alive: {names})"
    in_queue = [worker for worker in able if record.queue in worker.queues]
    if not in_queue:
        queues = ", ".join(sorted({f"`{queue}`" for worker in able for queue in worker.queues}))
        return f"no live worker with its code takes from queue `{record.queue}` (they take from {queues})"
    fitting = [worker for worker in in_queue if _runs(worker, record.version)]
    if not fitting:
        versions = (
            " or ".join(sorted({version for worker in in_queue for version in worker.versions or ()}))
            or "none"
        )
        return f"no live worker runs version {record.version!r} (they run: {versions})"
    if not any(_has_tags(worker, record) for worker in fitting):
        return _missing_tags(record, fitting)
    return None


def _missing_tags(record: FlowRecord, workers: list[WorkerRecord]) -> str:
    """Which tags nobody has; where each is somebody's, that nobody has all of them."""
    known = {tag for worker in workers for tag in worker.tags}
    wanted = [tag for tag in record.tags if tag not in known] or list(record.tags)
    told = ", ".join(f"`{tag}`" for tag in wanted)
    what = f"has tag {told}" if len(wanted) == 1 else f"has all of the tags {told}"
    have = ", ".join(sorted(known)) or "none"
    return f"no live worker that takes from queue `{record.queue}` {what} (they have: {have})"


def _runs(worker: WorkerRecord, version: str | None) -> bool:
    return worker.versions is None or VersionSet.parse(worker.versions).matches(version)


def _has_tags(worker: WorkerRecord, record: FlowRecord) -> bool:
    return set(record.tags) <= set(worker.tags)


def _running(record: FlowRecord, workers: list[WorkerRecord], _now: float) -> str:
    owner = next(worker for worker in workers if worker.id == record.owner)
    at = f"on worker {owner.name!r} (pid {owner.pid} on {owner.host})"
    waits = read_waits(record.reason)
    if not waits:
        return f"is running {at}"
    busy = [wait for wait in waits if wait.get("kind") == "step"]
    if busy:
        return f"is running {_step(busy[0])} {at}" + (
            f" and {len(busy) - 1} more steps" if len(busy) > 1 else ""
        )
    return f"is in memory {at}, {waits_sentence(waits)}"


def _left_behind(record: FlowRecord, owner: WorkerRecord | None, workers: list[WorkerRecord]) -> str:
    """Its worker died, and no other has taken the flow over yet."""
    waits = read_waits(record.reason)
    busy = [wait for wait in waits if wait.get("kind") == "step"]
    doing = f"was running {_step(busy[0])}" if busy else "was in memory" if waits else "was running"
    who = f"worker {owner.name!r} (pid {owner.pid} on {owner.host})" if owner else f"worker {record.owner}"
    return f"{doing} on {who}, which is gone; {_successor(record, workers)}"


def _successor(record: FlowRecord, workers: list[WorkerRecord]) -> str:
    able = [worker for worker in workers if _takes(worker, record)]
    if able:
        return f"{able[0].name!r} takes it over within seconds"
    return f"it goes on as soon as a worker runs that has code for `{record.name}`{_told_tags(record)}"


def _told_tags(record: FlowRecord) -> str:
    if not record.tags:
        return ""
    return f" and the tag{'s' if len(record.tags) > 1 else ''} {', '.join(f'`{tag}`' for tag in record.tags)}"


def _takes(worker: WorkerRecord, record: FlowRecord) -> bool:
    return missing_for(record, [worker]) is None


def _step(wait: dict[str, Any]) -> str:
    attempt = f", attempt {wait['attempt']}" if wait.get("attempt", 1) > 1 else ""
    source = f" in {wait['source']}" if wait.get("source") else ""
    return f'step "{wait.get("name")}" (asked for at {clock_time(wait["since"])}{source}{attempt})'


def _suspended(record: FlowRecord, workers: list[WorkerRecord], now: float) -> str:
    sentence = f"is {waits_sentence(read_waits(record.reason))}" if record.reason else "has not started yet"
    if record.wake_at is None:
        return sentence
    if record.wake_at > now:
        told = clock_time(record.wake_at)
        return sentence if told in sentence else f"{sentence}; it goes on by itself at {told}"
    return f"{sentence}; it was due at {clock_time(record.wake_at)} and {_nobody(record, workers)}"


def _nobody(record: FlowRecord, workers: list[WorkerRecord]) -> str:
    if not workers:
        return "no worker is alive"
    return missing_for(record, workers) or "will be claimed in a moment"


def _ended(record: FlowRecord, _workers: list[WorkerRecord], _now: float) -> str:
    at = f" at {clock_time(record.ended_at)}" if record.ended_at is not None else ""
    if record.status is TaskStatus.FAILED:
        return f"has ended: failed{at} with {failure_line(record.output)}"
    return f"has ended: {record.status}{at}" + (f" ({one_line(record.reason)})" if record.reason else "")


def _why_paused(record: FlowRecord) -> str:
    told = one_line(record.reason)
    return f": {told}" if told not in ("", "paused") else ""


_SENTENCES = {
    TaskStatus.PENDING: _pending,
    TaskStatus.RUNNING: _running,
    TaskStatus.SUSPENDED: _suspended,
    TaskStatus.PAUSED: lambda record, _workers, _now: f"was paused{_why_paused(record)}; resume it",
    TaskStatus.PARKED: lambda record, _workers, _now: f"is parked: {one_line(record.reason)}",
    TaskStatus.COMPLETED: _ended,
    TaskStatus.FAILED: _ended,
    TaskStatus.CANCELLED: _ended,
}
