"""What is durable in a log's file, read with plain `sqlite3`: not with the code under test.

A snapshot is taken of a copy, so that looking changes nothing: no lock, no recovery of the write-ahead log, no
checkpoint happens on the files that the next process will open.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """All rows at one moment."""

    flows: dict[str, Row] = field(default_factory=dict)
    events: dict[str, list[Row]] = field(default_factory=dict)
    """By flow id, in order."""
    inbox: list[Row] = field(default_factory=list)
    workers: dict[str, Row] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    """What `integrity_check` found."""

    def done(self, flow: str) -> bool:
        """True when the flow has ended."""
        return flow in self.flows and self.flows[flow]["status"] in ("completed", "failed", "cancelled")


def take_snapshot(log: Path, folder: Path) -> Snapshot:
    """Copy the log's files into `folder` and read them. Nobody may be writing meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = folder / log.name
    for suffix in ("", "-wal"):
        source = log.with_name(log.name + suffix)
        if source.exists():
            shutil.copyfile(source, copy.with_name(copy.name + suffix))
    return read_snapshot(copy) if copy.exists() else Snapshot()


def read_some(log: Path, rng: random.Random, count: int = 100) -> dict[str, list[Row]]:
    """Histories of some flows while others use the log; it is opened only for reading, which leaves them alone."""
    connection = sqlite3.connect(f"file:{log}?mode=ro", uri=True, isolation_level=None, timeout=5)
    try:
        connection.row_factory = _as_dict
        connection.execute("BEGIN")
        last = connection.execute("SELECT coalesce(max(num), 0) AS num FROM flows").fetchone()["num"]
        nums = {
            *range(max(last - count // 2, 0), last),
            *(rng.randrange(last + 1) for _ in range(count // 2)),
        }
        found: dict[str, list[Row]] = {}
        for num in sorted(nums):
            flow = connection.execute("SELECT id FROM flows WHERE num = ?", (num,)).fetchone()
            if flow is not None:
                rows = connection.execute("SELECT * FROM events WHERE flow_num = ? ORDER BY seq", (num,))
                found[flow["id"]] = [_without_num(row) for row in rows]
        return found
    finally:
        connection.close()


def _as_dict(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Row:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def _without_num(row: Row) -> Row:
    del row["flow_num"]
    return row


def read_snapshot(log: Path) -> Snapshot:
    """Read a log's file."""
    connection = sqlite3.connect(log, isolation_level=None, timeout=30)
    try:
        connection.row_factory = _as_dict
        connection.text_factory = lambda text: text.decode(
            errors="backslashreplace"
        )  # some scenario damages rows
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("BEGIN")
        problems = [str(row["integrity_check"]) for row in connection.execute("PRAGMA integrity_check")]
        tables = {row["name"] for row in connection.execute("SELECT name FROM sqlite_master")}
        bad = tuple(problem for problem in problems if problem != "ok")
        if "flows" not in tables:
            return Snapshot(problems=bad)
        flows = {row["id"]: row for row in connection.execute("SELECT * FROM flows ORDER BY num")}
        ids = {row["num"]: id for id, row in flows.items()}
        events: dict[str, list[Row]] = {id: [] for id in flows}
        for row in connection.execute("SELECT * FROM events ORDER BY flow_num, seq"):
            num = row.pop("flow_num")
            if num not in ids:
                bad = (*bad, f"event {row} belongs to no flow")
                continue
            events[ids[num]].append(row)
        inbox = list(connection.execute("SELECT * FROM inbox ORDER BY id"))
        workers = {row["id"]: row for row in connection.execute("SELECT * FROM workers")}
        return Snapshot(flows, events, inbox, workers, bad)
    finally:
        connection.close()
