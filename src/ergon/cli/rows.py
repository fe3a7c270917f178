"""What `--json` prints. These names and meanings are stable; fields may be added, never changed or removed.

Times are ISO 8601 text in UTC with a final Z, or null. Payloads are the JSON values themselves.
"""

from __future__ import annotations

import json
from typing import Any, Final

from ergon.cli.output import iso
from ergon.core.commit import FlowRecord, Received, WorkerRecord
from ergon.core.history import Event
from ergon.executor.sentences import plain_reason, read_waits

FLOW: Final = {
    "id": "the flow's id",
    "name": "the flow's name: which code it runs",
    "status": "pending, running, suspended, paused, parked, completed, failed or cancelled",
    "queue": "which workers may take it",
    "version": "the version of its code, or null: any",
    "tags": "what a worker must have to take it: a list, sorted",
    "priority": "higher is claimed first",
    "created_at": "when it was scheduled",
    "started_at": "when it was first claimed, or null",
    "ended_at": "when it ended, or null",
    "wake_at": "when it goes on by itself, or null",
    "deadline_at": "when it is cancelled, or null",
    "owner": "the worker's incarnation that runs it, or null",
    "parent_id": "the flow that started it, or null",
    "waits": "what it does or waits for: objects with kind, name and, where known, op, since, due, source, stack",
    "reason": "why it is parked, paused or cancelled, as text",
}
EVENT: Final = {
    "seq": "1, 2, 3 ...",
    "kind": "what happened, such as step_completed",
    "op": "the durable operation it settles, such as 0/2:1, or an empty text",
    "name": "the step's, signal's or child flow's name",
    "at": "when; of step_retried and flow_retried: when the next attempt is due",
    "attempt": "which attempt of a step, from 1; 0 where it does not apply",
    "source": "where the flow's code asked for it, such as order.py:42",
    "payload": "the result, failure or value, or null",
}
WORKER: Final = {
    "id": "one start of a worker",
    "name": "its name",
    "state": "alive, draining, dead or stopped",
    "host": "the machine",
    "pid": "the process",
    "flows": "names of the flows it has code for",
    "queues": "the queues it takes from",
    "versions": "the versions it runs, as names and ranges, or null: any",
    "tags": "what it has: it takes flows all of whose tags are among these",
    "started_at": "when",
    "lease_expires_at": "until when it may own flows unless it renews",
}
NAMESPACE: Final = {
    "namespace": "its name, for --namespace",
    "log": "its URL, for --log, without a password",
}
ACT: Final = {
    "id": "the flow's id",
    "verb": "signal, cancel, kill, pause, resume, retry or delete",
    "changed": "false for a dry run, and when it was so already",
    "dry_run": "true when nothing was to be changed",
    "status_before": "where the flow stood, or null: there is no such flow",
    "message": "what was done, or would be, in one sentence",
}
WHY: Final = {
    "id": "the flow's id",
    "status": "where it stands",
    "sentence": "why, with the evidence",
}
MESSAGE: Final = {
    "id": "grows in the order of arrival",
    "kind": "signal, child, cancel or retry_now",
    "name": "the signal's name",
    "at": "when it came",
    "payload": "its value",
}


def flow_row(record: FlowRecord) -> dict[str, Any]:
    """A flow as `FLOW` describes it."""
    waits = read_waits(record.reason)
    return {
        "id": record.id,
        "name": record.name,
        "status": record.status.value,
        "queue": record.queue,
        "version": record.version,
        "tags": list(record.tags),
        "priority": record.priority,
        "created_at": iso(record.created_at),
        "started_at": iso(record.started_at),
        "ended_at": iso(record.ended_at),
        "wake_at": iso(record.wake_at),
        "deadline_at": iso(record.deadline_at),
        "owner": record.owner,
        "parent_id": record.parent_id,
        "waits": [_wait_row(wait) for wait in waits],
        "reason": plain_reason(record.reason),
    }


def event_row(event: Event) -> dict[str, Any]:
    """An event as `EVENT` describes it."""
    return {
        "seq": event.seq,
        "kind": event.kind,
        "op": event.op,
        "name": event.name,
        "at": iso(event.at),
        "attempt": event.attempt,
        "source": event.source,
        "payload": payload(event.payload),
    }


def worker_row(worker: WorkerRecord, state: str) -> dict[str, Any]:
    """A worker as `WORKER` describes it."""
    return {
        "id": worker.id,
        "name": worker.name,
        "state": state,
        "host": worker.host,
        "pid": worker.pid,
        "flows": list(worker.flows),
        "queues": list(worker.queues),
        "versions": list(worker.versions) if worker.versions is not None else None,
        "tags": list(worker.tags),
        "started_at": iso(worker.started_at),
        "lease_expires_at": iso(worker.lease_expires_at),
    }


def message_row(message: Received) -> dict[str, Any]:
    """A message as `MESSAGE` describes it."""
    return {
        "id": message.id,
        "kind": message.kind,
        "name": message.name,
        "at": iso(message.at),
        "payload": payload(message.payload),
    }


def payload(text: str | None) -> Any:
    """A stored payload as the value it is; text that is no JSON (made by a codec) stays text."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


def fields_of(title: str, schema: dict[str, str]) -> str:
    r"""The lines of a verb's help that document its JSON; the \b keeps click from filling them."""
    lines = "\n".join(f"  {name:<16} {meaning}" for name, meaning in schema.items())
    return f"\b\n{title}\n{lines}"


def _wait_row(wait: dict[str, Any]) -> dict[str, Any]:
    return {key: iso(value) if key in ("since", "due") else value for key, value in wait.items()}
