"""The bare driver: one thread that writes rows, durable, with nothing around it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

BATCH_MAX = 1000
CREATE = (
    "CREATE TABLE events (flow_id TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, op TEXT NOT NULL, "
    "name TEXT NOT NULL, digest TEXT NOT NULL, payload TEXT, at REAL NOT NULL, source TEXT NOT NULL, "
    "attempt INTEGER NOT NULL, PRIMARY KEY (flow_id, seq)) STRICT, WITHOUT ROWID"
)
INSERT = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
EventRow = tuple[str, int, str, str, str, str, str, float, str, int]


def row(flow_id: str, seq: int) -> EventRow:
    """A row of the size that Ergon writes for one small step."""
    return (
        flow_id, seq, "step_completed", f"0:{seq}", "add_one", "9f86d081884c7d65", str(seq), time.time(),
        "benchmarks/flows.py:24", 1,
    )  # fmt: skip


def connect(path: Path) -> sqlite3.Connection:
    """Open with the journal and the durability that Ergon has: WAL, FULL. A new file gets a table of events."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        connection.execute(CREATE)
    return connection


class BareWriter:
    """One writer thread that asyncio awaits. `group` commits all that waits at once, else one row at a time."""

    def __init__(self, path: Path, *, group: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[str, tuple[Any, ...], asyncio.Future[None]] | None] = SimpleQueue()
        self._connection = connect(path)
        self._thread = threading.Thread(target=self._run_groups if group else self._run_single, daemon=True)
        self._thread.start()

    def write(self, values: tuple[Any, ...], statement: str = INSERT) -> asyncio.Future[None]:
        """Resolved when the row is durable."""
        done = self._loop.create_future()
        self._jobs.put((statement, values, done))
        return done

    def close(self) -> None:
        """Wait for the thread to end."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _run_single(self) -> None:
        execute, tell = self._connection.execute, self._loop.call_soon_threadsafe
        while (job := self._jobs.get()) is not None:
            statement, values, done = job
            execute(statement, values)
            tell(done.set_result, None)

    def _run_groups(self) -> None:
        going = True
        while going:
            batch: list[Any] = [self._jobs.get()]
            try:
                while len(batch) < BATCH_MAX:
                    batch.append(self._jobs.get_nowait())
            except Empty:
                pass
            if batch[-1] is None:
                batch.pop()
                going = False
            rows = defaultdict(list)
            for statement, values, _ in batch:
                rows[statement].append(values)
            self._connection.execute("BEGIN IMMEDIATE")
            for statement, many in rows.items():
                self._connection.executemany(statement, many)
            self._connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_resolve, [done for _, _, done in batch])


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)


def time_ms(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000
