"""The stores that a run can torment, seen with plain drivers: what is durable in one, and what can happen to it.

Nothing of Ergon is imported here.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from tests.crash.snapshot import Row, Snapshot, read_snapshot, read_some

SOME: Final = 100


class Store(Protocol):
    """One store, for one run."""

    name: str
    url: str
    """For `open_log`."""
    facts: str
    """What it is, for the report."""
    faults: dict[str, Callable[[], object]]
    """What can happen to the store itself, by name."""
    pause: tuple[float, float]
    """Seconds between faults, at least and at most: enough for a new process to come to work now and then."""

    def snapshot(self) -> Snapshot:
        """All rows. Nobody writes any more."""
        ...

    def some(self, rng: random.Random) -> dict[str, list[Row]]:
        """Histories of some flows while others write."""
        ...

    def can_write(self) -> bool:
        """Whether a process that was just stopped leaves the store usable by the others."""
        ...

    def stop(self) -> None:
        """The run is over."""
        ...


class SqliteStore:
    """A file."""

    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._file = folder / "log.db"
        self.url = str(self._file)
        self.facts = f"SQLite {sqlite3.sqlite_version}, journal_mode=wal, synchronous=FULL"
        self.faults: dict[str, Callable[[], object]] = {}
        self.pause = (0.02, 0.2)

    def snapshot(self) -> Snapshot:
        return read_snapshot(self._file)

    def some(self, rng: random.Random) -> dict[str, list[Row]]:
        try:
            return read_some(self._file, rng, SOME)
        except sqlite3.Error:
            return {}  # everybody is dead and the log waits for its recovery, which is not ours to do

    def can_write(self) -> bool:
        """A test of its own looks at processes stopped inside a transaction. Here one would only stop everything."""
        if not self._file.exists():
            return True
        connection = sqlite3.connect(self._file, timeout=0.1, isolation_level=None)
        try:
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        finally:
            connection.close()
        return True

    def stop(self) -> None:
        pass


class PostgresStore:
    """A server of its own, whose crashes lose nothing that it acknowledged."""

    name = "postgres"

    def __init__(self) -> None:
        from tests.servers.postgres import Postgres

        self._server = Postgres(fsync="on", synchronous_commit="on")
        self.url = self._server.url()
        self.facts = "PostgreSQL, fsync=on, synchronous_commit=on"
        self.faults: dict[str, Callable[[], object]] = {
            "server crashes": self._crash,
            "all connections cut": self._cut,
        }
        self.pause = (0.1, 0.6)

    def snapshot(self) -> Snapshot:
        flows = self._rows("SELECT * FROM ergon.flows ORDER BY num")
        events: dict[str, list[Row]] = {row["id"]: [] for row in flows}
        problems = []
        for row in self._rows("SELECT * FROM ergon.events ORDER BY flow_id, seq"):
            flow_id = row.pop("flow_id")
            if flow_id in events:
                events[flow_id].append(row)
            else:
                problems.append(f"event {row} belongs to no flow")
        inbox = self._rows("SELECT * FROM ergon.inbox ORDER BY id")
        workers = self._rows("SELECT * FROM ergon.workers")
        return Snapshot(
            {row["id"]: row for row in flows}, events, inbox, {row["id"]: row for row in workers}, tuple(problems)
        )  # fmt: skip

    def some(self, rng: random.Random) -> dict[str, list[Row]]:
        ids = self._rows("SELECT id FROM ergon.flows ORDER BY num DESC LIMIT 2000")
        chosen = {row["id"] for row in ids[: SOME // 2]}
        chosen |= {row["id"] for row in rng.sample(ids, min(len(ids), SOME // 2))}
        found: dict[str, list[Row]] = {flow_id: [] for flow_id in chosen}
        rows = self._rows(
            "SELECT * FROM ergon.events WHERE flow_id = ANY($1) ORDER BY flow_id, seq", list(chosen)
        )
        for row in rows:
            found[row.pop("flow_id")].append(row)
        return found

    def can_write(self) -> bool:
        """The server ends the transaction of a process that stopped inside one."""
        return True

    def stop(self) -> None:
        self._server.stop()

    def _crash(self) -> None:
        self._server.crash()
        self._server.start()

    def _cut(self) -> None:
        self._rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname IS NOT NULL"
        )

    def _rows(self, query: str, *values: Any) -> list[Row]:
        import asyncpg

        async def ask() -> list[Row]:
            connection = await asyncpg.connect(self.url)
            try:
                return [dict(row) for row in await connection.fetch(query, *values)]
            except asyncpg.UndefinedTableError:
                return []  # nobody has opened the log yet
            finally:
                await connection.close()

        return asyncio.run(ask())


STORES: Final[dict[str, Callable[[Path], Store]]] = {
    "sqlite": SqliteStore,
    "postgres": lambda _: PostgresStore(),
}
