"""SQL as source: named statements in `.sql` files beside the Python that runs them.

A file holds statements, each under a line `-- name: what_it_does`. No SQL is ever made from data: `{flow}`, `{event}`
and `{message}` stand for fixed lists of columns, in the order in which `rows.py` reads them, and `{texts:1}` stands for
a column of text as `texts.py` makes it.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

_COLUMNS: Final = {
    "{flow}": (
        "f.id, f.name, f.status, f.queue, f.version, f.priority, f.input, f.output, f.reason, f.created_at, "
        "f.started_at, f.ended_at, f.wake_at, f.deadline_at, f.owner, f.epoch, f.claims_stalled, f.parent_id, "
        "f.parent_op, f.close_with_parent, f.tags"
    ),
    "{event}": "e.seq, e.kind, e.op, e.name, e.digest, e.payload, e.at, e.source, e.attempt, e.last, e.ats",
    "{message}": "i.id, i.flow_id, i.kind, i.name, i.payload, i.at",
    "{worker}": (
        "w.id, w.name, w.host, w.pid, w.process_start, w.boot_id, w.flows, w.queues, w.versions, w.tags, "
        "w.started_at, w.lease_expires_at, w.state"
    ),
}


@cache
def statements(file: str) -> dict[str, str]:
    """Return the statements of a file beside this one, by name."""
    found: dict[str, str] = {}
    text = Path(__file__).with_name(file).read_text(encoding="utf-8")
    for part in text.split("-- name: ")[1:]:
        name, _, sql = part.partition("\n")
        found[name.strip()] = with_columns(sql.strip().rstrip(";"))
    return found


def with_columns(sql: str) -> str:
    """Put the lists of columns in the place of their names."""
    for name, columns in _COLUMNS.items():
        sql = sql.replace(name, columns)
    return re.sub(r"\{texts:(\d+)\}", r"(string_to_array($\1::text, E'\\x1f', E'\\x1e'))[2:]", sql)
