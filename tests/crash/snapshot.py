"""What is durable in a log's file, read with plain `sqlite3`: not with the code under test.

A snapshot is taken of a copy, so that looking changes nothing: no lock, no recovery of the write-ahead log, no
checkpoint happens on the files that the next process will open.
"""

from __future__ import annotations

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


def read_snapshot(log: Path, *, live: bool = False) -> Snapshot:
    """Read a log's file. `live`: others use it, so it is opened only for reading, which leaves them alone."""
    target = f"file:{log}?mode=ro" if live else str(log)
    connection = sqlite3.connect(target, uri=live, isolation_level=None, timeout=30)
    try:
        connection.row_factory = lambda cursor, row: {
            column[0]: value for column, value in zip(cursor.description, row, strict=True)
        }
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.execute("BEGIN")
        check = [] if live else connection.execute("PRAGMA integrity_check")
        problems = [str(row["integrity_check"]) for row in check]
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
