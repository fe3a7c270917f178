"""From the JSON that a statement returns to the values of the seam. `rows.sql` makes the JSON."""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from ergon.core.commit import FlowRecord, Received, WorkerRecord, make_record
from ergon.core.history import Event, make_event
from ergon.core.status import TaskStatus
from ergon.errors import LogDamaged

_UNIT: Final = 2.0**-62
"""A time is whole seconds and a rest in this unit; both are exact."""

NO_TAGS: Final = "[]"
"""A flow's tags are kept as JSON text: the text of most flows."""

_Flow = tuple[
    str, str, str, str, str | None, int, str, str | None, str,
    int, int, int | None, int | None, int | None, int | None, int | None, int | None, int | None, int | None,
    str | None, int, int, str | None, str | None, int, str,
]  # fmt: skip
_Event = tuple[str, int, str, str, str, str, str | None, int, int, str, int]
_Message = tuple[int, str, str, str, str | None, int, int]
_Worker = tuple[
    str, str, str, int, str, str, tuple[str, ...], tuple[str, ...], tuple[str, ...] | None, tuple[str, ...],
    int, int, int, int, str,
]  # fmt: skip

_flows: Final = msgspec.json.Decoder(list[_Flow])
_events: Final = msgspec.json.Decoder(list[_Event])
_messages: Final = msgspec.json.Decoder(list[_Message])
_workers: Final = msgspec.json.Decoder(list[_Worker])
_tags: Final = msgspec.json.Decoder(tuple[str, ...])
_STATUS: Final = {status.value: status for status in TaskStatus}

T = TypeVar("T")


def flow_records(text: str | None) -> list[FlowRecord]:
    """Read a JSON array of `flow_rows.row`."""
    try:
        return [_flow(row) for row in _decode(_flows, text)]
    except KeyError as error:
        raise LogDamaged(f"a stored flow has the unknown status {error}") from error


def events_by_flow(text: str | None) -> dict[str, list[Event]]:
    """Read a JSON array of `event_rows.row`, each flow's in the order given."""
    found: dict[str, list[Event]] = {}
    last = None
    events: list[Event] = []
    for flow_id, seq, kind, op, name, digest, payload, at, rest, source, attempt in _decode(_events, text):
        if flow_id != last:
            last, events = flow_id, found.setdefault(flow_id, [])
        events.append(make_event((seq, kind, op, name, digest, payload, at + rest * _UNIT, source, attempt)))
    return found


def messages(text: str | None) -> list[Received]:
    """Read a JSON array of `inbox_rows.row`."""
    return [
        Received(id, flow_id, kind, name, payload, at + rest * _UNIT)
        for id, flow_id, kind, name, payload, at, rest in _decode(_messages, text)
    ]


def worker_records(text: str | None) -> list[WorkerRecord]:
    """Read a JSON array of `worker_rows.row`."""
    return [
        WorkerRecord(
            id=row[0],
            name=row[1],
            host=row[2],
            pid=row[3],
            process_start=row[4],
            boot_id=row[5],
            flows=row[6],
            queues=row[7],
            versions=row[8],
            tags=row[9],
            started_at=row[10] + row[11] * _UNIT,
            lease_expires_at=row[12] + row[13] * _UNIT,
            state=row[14],
        )
        for row in _decode(_workers, text)
    ]


def _flow(row: _Flow) -> FlowRecord:
    (
        flow_id, name, status, queue, version, priority, input, output, reason,
        created, created_rest, started, started_rest, ended, ended_rest, wake, wake_rest, deadline, deadline_rest,
        owner, epoch, claims_stalled, parent_id, parent_op, close_with_parent, tags,
    ) = row  # fmt: skip
    return make_record(
        (
            flow_id, name, _STATUS[status], queue, version, priority, input, output, reason,
            created + created_rest * _UNIT,
            None if started is None else _time(started, started_rest),
            None if ended is None else _time(ended, ended_rest),
            None if wake is None else _time(wake, wake_rest),
            None if deadline is None else _time(deadline, deadline_rest),
            owner, epoch, claims_stalled, parent_id, parent_op, close_with_parent != 0,
            () if tags == NO_TAGS else _decode(_tags, tags),
        )
    )  # fmt: skip


def _time(whole: int | None, rest: int | None) -> float | None:
    return None if whole is None or rest is None else whole + rest * _UNIT


def _decode(decoder: msgspec.json.Decoder[T], text: str | None) -> T:
    try:
        return decoder.decode(text or "[]")
    except (msgspec.DecodeError, UnicodeError) as error:
        raise LogDamaged(f"a stored row is not what this log writes: {error}") from error


_standings: Final = msgspec.json.Decoder(list[tuple[str, str | None]])
_numbers: Final = msgspec.json.Decoder(list[int])
_numbered: Final = msgspec.json.Decoder(list[tuple[int, str]])
_counts: Final = msgspec.json.Decoder(list[tuple[str | None, int]])


def numbered(text: str | None) -> list[tuple[int, str]]:
    """Read a JSON array of pairs of a row's number and the row."""
    return _decode(_numbered, text)


def counts(text: str | None) -> tuple[dict[TaskStatus, int], int]:
    """Read a JSON array of pairs of a status (null: none that exists) and how many; count the latter apart."""
    found = _decode(_counts, text)
    impossible = sum(number for status, number in found if status is None)
    return {_STATUS[status]: number for status, number in found if status is not None}, impossible


def standings(text: str | None) -> list[tuple[str, TaskStatus | None]]:
    """Read a JSON array of pairs of a flow's id and its status, null when it has none."""
    return [
        (flow_id, _STATUS[status] if status is not None else None)
        for flow_id, status in _decode(_standings, text)
    ]


def numbers(text: str | None) -> list[int]:
    """Read a JSON array of rows' numbers."""
    return _decode(_numbers, text)
