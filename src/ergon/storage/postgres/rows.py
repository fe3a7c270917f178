"""From the rows that statements return to the values of the seam. `statements.py` has the columns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from ergon.core.commit import FlowRecord, Received, WorkerRecord
from ergon.core.status import TaskStatus
from ergon.errors import LogDamaged

NO_TAGS: Final = "[]"
"""A flow's tags are kept as JSON text: the text of most flows."""

_ESCAPED: Final = "\x01"
"""Before a text that PostgreSQL cannot keep as it is: JSON follows, which can say U+0000 and halves of characters."""

_STATUS: Final = {status.value: status for status in TaskStatus}
_names: Final = msgspec.json.Decoder(tuple[str, ...])
_some_names: Final = msgspec.json.Decoder(tuple[str, ...] | None)


def flow(row: Sequence[Any]) -> FlowRecord:
    """A row of `{flow}`; more columns may follow. Raises `LogDamaged` with the flow's id."""
    values = list(row[:21])
    values[2] = _STATUS[values[2]]
    values[8] = told(values[8])
    if values[20] == NO_TAGS:
        values[20] = ()
    else:
        try:
            values[20] = _names.decode(values[20])
        except msgspec.DecodeError as error:
            raise LogDamaged(
                f"flow {values[0]!r} is damaged: column tags of its row in table flows holds no list of texts. Mend "
                "the row; other flows are not concerned",
                flow_id=values[0],
            ) from error
    return FlowRecord(*values)


def status(value: str | None) -> TaskStatus | None:
    """A column `status`, or None."""
    return None if value is None else _STATUS[value]


def message(row: Sequence[Any]) -> Received:
    """A row of `{message}`."""
    return Received(*row)


def worker(row: Sequence[Any]) -> WorkerRecord:
    """A row of `{worker}`."""
    return WorkerRecord(
        id=row[0],
        name=row[1],
        host=row[2],
        pid=row[3],
        process_start=row[4],
        boot_id=row[5],
        flows=_names.decode(row[6]),
        queues=_names.decode(row[7]),
        versions=_some_names.decode(row[8]),
        tags=_names.decode(row[9]),
        started_at=row[10],
        lease_expires_at=row[11],
        state=row[12],
    )


def kept(text: str) -> str:
    """A text for people, such as a reason, as a column can keep it."""
    if text.isascii() and "\0" not in text and not text.startswith(_ESCAPED):
        return text
    if "\0" in text or text.startswith(_ESCAPED) or not _is_unicode(text):
        return _ESCAPED + json.dumps(text)
    return text


def told(text: str) -> str:
    """What `kept` kept."""
    return str(json.loads(text[1:])) if text.startswith(_ESCAPED) else text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_json(values: Iterable[Any]) -> str:
    """Write values as a JSON array, as tags are kept."""
    return json.dumps(list(values), ensure_ascii=False)


def columns(rows: Iterable[Sequence[Any]], width: int) -> list[tuple[Any, ...]]:
    """Turn rows into columns: statements for many rows take one array a column."""
    turned = list(zip(*rows, strict=True))
    return turned or [()] * width
