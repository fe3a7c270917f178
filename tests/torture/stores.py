"""The stores that a run can torment, seen with plain drivers: what is durable in one, and what can happen to it.

Nothing of Ergon is imported here.
"""

from __future__ import annotations

import asyncio
import json
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


def _taken_apart(row: Row) -> list[Row]:
    """The events in a row of PostgreSQL's table: one, or results of one step that came together."""
    last, ats = row.pop("last"), row.pop("ats")
    if last is None:
        return [row]
    texts = zip(*(row[name].split("\x1f") for name in ("op", "digest", "payload")), strict=True)
    numbers = range(row["seq"], last + 1)
    return [
        {
            **row,
            "seq": seq,
            "op": op,
            "digest": digest,
            "payload": None if payload == "\x1e" else payload,
            "at": at,
        }
        for seq, at, (op, digest, payload) in zip(numbers, ats, texts, strict=True)
    ]


class PostgresStore:
    """A server of its own, whose crashes lose nothing that it acknowledged."""

    name = "postgres"

    def __init__(self) -> None:
        from tests.servers.postgres import Postgres

        self._server = Postgres(settings={"fsync": "on", "synchronous_commit": "on"})
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
                events[flow_id] += _taken_apart(row)
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
            found[row.pop("flow_id")] += _taken_apart(row)
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


class RedisStore:
    """A server of its own that flushes each write, so that its crashes lose nothing that it acknowledged."""

    name = "redis"

    def __init__(self) -> None:
        from tests.servers.redis import RedisServer

        self._server = RedisServer()
        self._client: Any = self._server.client()
        self.url = self._server.url
        self.facts = (
            f"{self._client.info('server').get('server_name', 'redis')}, appendonly=yes, appendfsync=always"
        )
        self.faults: dict[str, Callable[[], object]] = {
            "server crashes": self._server.restart,
            "all connections cut": self._cut,
            "scripts forgotten": self._client.script_flush,
        }
        self.pause = (0.1, 0.6)

    def snapshot(self) -> Snapshot:
        ids = self._client.zrange(f"{_PART}flows", 0, -1)
        flows: dict[str, Row] = {}
        events: dict[str, list[Row]] = {}
        inbox: list[Row] = []
        for id in ids:
            kept = self._client.hgetall(f"{_PART}flow:{id}")
            flows[id] = {**_COLUMNS, **kept, "id": id}
            flows[id] |= {
                name: int(flows[id][name]) for name in ("epoch", "claims_stalled", "close_with_parent")
            }
            events[id] = self._events(id)
            inbox += self._inbox(id)
        workers = {
            id: self._client.hgetall(f"{_PART}worker:{id}") | {"id": id}
            for id in self._client.zrange(f"{_PART}workers", 0, -1)
        }
        return Snapshot(
            flows, events, sorted(inbox, key=lambda row: row["id"]), workers, self._problems(flows)
        )

    def some(self, rng: random.Random) -> dict[str, list[Row]]:
        ids = self._client.zrange(f"{_PART}flows", -2000, -1)
        chosen = {*ids[-(SOME // 2) :], *rng.sample(ids, min(len(ids), SOME // 2))}
        return {id: self._events(id) for id in chosen}

    def can_write(self) -> bool:
        """A script is over before a process can be stopped inside it."""
        return True

    def stop(self) -> None:
        self._client.close()
        self._server.stop()

    def _cut(self) -> None:
        for kind in ("normal", "pubsub"):
            self._client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    def _inbox(self, id: str) -> list[Row]:
        taken = {
            number: int(seq)
            for seq, numbers in self._client.hgetall(f"{_PART}taken:{id}").items()
            for number in numbers.split(",")
        }
        keys = {number: field for field, number in self._client.hgetall(f"{_PART}keys:{id}").items()}
        found = []
        for number, text in self._client.hgetall(f"{_PART}inbox:{id}").items():
            _, kind, name, payload, at = json.loads(text)
            # `<length>:<kind><length>:<name><key>`
            begin = sum(len(f"{len(part.encode())}:{part}") for part in (kind, name))
            row = {"id": int(number), "flow_id": id, "kind": kind, "name": name, "payload": payload, "at": at}
            key = keys[number][begin:] if number in keys else None
            found.append(row | {"key": key, "consumed_seq": taken.get(number)})
        return found

    def _events(self, id: str) -> list[Row]:
        names = ("seq", "kind", "op", "name", "digest", "payload", "at", "source", "attempt")
        texts = self._client.lrange(f"{_PART}events:{id}", 0, -1)
        return [dict(zip(names, json.loads(text), strict=True)) for text in texts]

    def _problems(self, flows: dict[str, Row]) -> tuple[str, ...]:
        """Where an index says something else than the flows."""
        found = []
        for status in {row["status"] for row in flows.values()}:
            indexed = set(self._client.zrange(f"{_PART}status:{status}", 0, -1))
            if indexed != {id for id, row in flows.items() if row["status"] == status}:
                found.append(f"the index of {status} flows is wrong")
        for key in self._client.scan_iter(f"{_PART}owned:*"):
            owner = key.removeprefix(f"{_PART}owned:")
            if any(flows[id]["owner"] != owner for id in self._client.smembers(key)):
                found.append(f"the index of what {owner} owns is wrong")
        return tuple(found)


_PART: Final = "{ergon:0}:"
_TIMES: Final = ("started_at", "ended_at", "ready_at", "wake_at", "deadline_at", "timeout_seconds")
_COLUMNS: Final[Row] = dict.fromkeys(
    (*_TIMES, "version", "output", "owner", "claimed_seq", "parent_id", "parent_op")
)

STORES: Final[dict[str, Callable[[Path], Store]]] = {
    "sqlite": SqliteStore,
    "postgres": lambda _: PostgresStore(),
    "redis": lambda _: RedisStore(),
}
