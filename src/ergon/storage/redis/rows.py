"""From what the server answers to the values of the seam."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ergon.core.commit import FlowRecord, Received, WorkerRecord
from ergon.core.history import Event, make_event
from ergon.core.status import TaskStatus
from ergon.errors import LogDamaged

NO_TAGS: Final = "[]"
UNREADABLE: Final = (ValueError, KeyError, TypeError, msgspec.MsgspecError)
"""What reading a damaged key may raise; `UnicodeError` and `LogDamaged`'s own are among them or raised from them."""

_STATUS: Final = {status.value.encode(): status for status in TaskStatus}
_events: Final = msgspec.json.Decoder(list[tuple[int, str, str, str, str, str | None, float, str, int]])
_message: Final = msgspec.json.Decoder(tuple[int, str, str, str | None, float])
_tags: Final = msgspec.json.Decoder(tuple[str, ...])
encode: Final = msgspec.json.Encoder().encode


def pairs(flat: Sequence[Any]) -> dict[bytes, Any]:
    """A hash as scripts return it: names and values in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def flow_record(flow_id: str, kept: Mapping[bytes, bytes]) -> FlowRecord:
    """One flow from its hash."""
    get = kept.get
    tags = kept[b"tags"].decode()
    return FlowRecord(
        flow_id,
        kept[b"name"].decode(),
        _STATUS[kept[b"status"]],
        kept[b"queue"].decode(),
        _text(get(b"version")),
        int(kept[b"priority"]),
        kept[b"input"].decode(),
        _text(get(b"output")),
        kept[b"reason"].decode(),
        float(kept[b"created_at"]),
        _time(get(b"started_at")),
        _time(get(b"ended_at")),
        _time(get(b"wake_at")),
        _time(get(b"deadline_at")),
        _text(get(b"owner")),
        int(kept[b"epoch"]),
        int(kept[b"claims_stalled"]),
        _text(get(b"parent_id")),
        _text(get(b"parent_op")),
        kept[b"close_with_parent"] == b"1",
        () if tags == NO_TAGS else _tags.decode(tags),
    )


SMALL: Final = tuple(
    name.encode() for name in FlowRecord._fields if name not in ("id", "input", "output", "reason")
)
"""The columns of a flow that are never large."""


def without_values(columns: Sequence[bytes | None]) -> dict[bytes, bytes]:
    """A flow's hash from its small columns; empty when there is none."""
    found = {name: value for name, value in zip(SMALL, columns, strict=True) if value is not None}
    return {**found, b"input": b"", b"reason": b""} if found else {}


def events(rows: Sequence[bytes]) -> list[Event]:
    """A history from its list."""
    return [make_event(row) for row in _events.decode(b"[" + b",".join(rows) + b"]")]


def message(flow_id: str, row: bytes) -> Received:
    """One message."""
    number, kind, name, payload, at = _message.decode(row)
    return Received(number, flow_id, kind, name, payload, at)


def messages(flow_id: str, rows: Sequence[bytes]) -> list[Received]:
    """The messages of one flow."""
    return [message(flow_id, row) for row in rows]


def worker_record(kept: Mapping[bytes, bytes]) -> WorkerRecord:
    """One incarnation from its hash."""
    record = msgspec.json.decode(kept[b"record"], type=dict[str, Any])
    for name in ("flows", "queues", "tags", "versions"):
        record[name] = None if record[name] is None else tuple(record[name])
    return WorkerRecord(
        **record,
        started_at=float(kept[b"started_at"]),
        lease_expires_at=float(kept[b"lease_expires_at"]),
        state=kept[b"state"].decode(),
    )


def lease_seconds(kept: Mapping[bytes, bytes]) -> float:
    """For how long an incarnation's lease was last extended; infinite when that cannot be read."""
    try:
        return float(kept[b"lease_seconds"])
    except (KeyError, ValueError):
        return math.inf


def changed_worker(worker_id: str, kept: Mapping[bytes, bytes]) -> WorkerRecord:
    """What is left of an incarnation whose hash somebody changed: enough to declare it dead in its time."""
    try:
        expires_at = float(kept[b"lease_expires_at"])
    except (KeyError, ValueError):
        expires_at = 0.0  # as `end_worker.lua` takes it
    state = kept.get(b"state", b"dead").decode("utf-8", "replace")
    return WorkerRecord(
        id=worker_id, name=worker_id, host="", pid=0, process_start="", boot_id="",
        lease_expires_at=expires_at, state=state,
    )  # fmt: skip


def worker_json(worker: WorkerRecord) -> bytes:
    """What of a worker is kept as its `record`."""
    names = ("id", "name", "host", "pid", "process_start", "boot_id", "flows", "queues", "versions", "tags")
    return encode({name: getattr(worker, name) for name in names})


def damaged(flow_id: str, error: BaseException) -> LogDamaged:
    """Say that a flow cannot be read."""
    return LogDamaged(
        f"flow {flow_id!r} is damaged: one of its keys cannot be read ({type(error).__name__}). Restore a backup, or "
        "mend the key; other flows are not concerned",
        flow_id=flow_id,
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()


def _time(value: bytes | None) -> float | None:
    return None if value is None else float(value)
