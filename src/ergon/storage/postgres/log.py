"""The execution log on PostgreSQL: the facade. Each facet's work is in the file that bears its name.

Commits, new flows and messages go through the group commit (`writer.py`); every other write is a transaction of its own
(`session.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, Self

from ergon.core.commit import (
    ClaimedFlow,
    ClaimRequest,
    Commit,
    Durability,
    FlowFilter,
    FlowRecord,
    Hint,
    Message,
    NewFlow,
    Received,
    WorkerRecord,
)
from ergon.core.durability import check_class
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.errors import LogClosed
from ergon.storage.answers import all_answers
from ergon.storage.clock import Clock
from ergon.storage.hints import Hints
from ergon.storage.log import ExecutionLog
from ergon.storage.postgres import catalog, claims, durability, inbox, intake, leases
from ergon.storage.postgres.address import read_url
from ergon.storage.postgres.clock import ServerClock
from ergon.storage.postgres.connection import Settings
from ergon.storage.postgres.cursors import Cursors
from ergon.storage.postgres.session import Session
from ergon.storage.postgres.writes import Create, Send


class PostgresExecutionLog(ExecutionLog):
    """Flows in a schema of a PostgreSQL database, for any number of processes on any number of machines.

    url: `postgresql://user@host:5432/database`, with libpq's options, and `schema`, `namespace` and `pgbouncer`.
    schema: where the tables are, `ergon` by default. Each schema is a log of its own.
    namespace: a log of its own in a schema beside that one: `acme` is in `ergon__acme`. None by default.
    require: refuse to open below this durability class. By default D3 is not demanded, but `fsync=off` is refused; say
    `require="D1"` where that is meant.
    migrate: create missing tables. False for a role that may not: then tables that are missing or old are refused.
    busy_timeout_seconds: how long a write waits for a server that is away before it raises `LogBusy`.
    pgbouncer: the URL leads to a pooler that gives each transaction another session. Nothing is prepared then, and
    nobody listens: changes by other processes are found by looking, twice a second.

    Raises `LogRefused` for a URL that is none, `InvalidName` for a namespace no log can keep.

    Needs PostgreSQL 13 or later and the package `ergon[postgres]`. An open log belongs to the event loop that
    connected it.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str | None = None,
        namespace: str | None = None,
        require: str | None = None,
        migrate: bool = True,
        busy_timeout_seconds: float = 30.0,
        pgbouncer: bool | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._require = check_class(require)
        self._address = read_url(url, schema=schema, namespace=namespace, pgbouncer=pgbouncer)
        self._clock = ServerClock(clock)
        self._hints = Hints()
        self._cursors = Cursors()
        settings = Settings(address=self._address, patience_seconds=busy_timeout_seconds)
        self._session = Session(settings, self._clock, self._hints.tell, migrate=migrate)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    # -- life ------------------------------------------------------------------------------------------------

    async def connect(self) -> Self:
        await self._session.open(self._require)
        return self

    async def close(self) -> None:
        await self._session.close()

    @property
    def url(self) -> str:
        return self._address.url

    @property
    def generation(self) -> str:
        """The id made with the tables. Another one under the same URL is another log, such as a restored backup."""
        return self._session.generation

    async def durability(self) -> Durability:
        return await self._session.read(durability.measure)

    def now(self) -> float:
        return self._clock.now()

    # -- journal ---------------------------------------------------------------------------------------------

    def submit(self, commit: Commit, done: Callable[[BaseException | None], None]) -> None:
        self._session.submit(commit, done)

    # -- intake ----------------------------------------------------------------------------------------------

    async def create(self, flow: NewFlow) -> FlowRecord | None:
        write = Create(flow, self._session.future())
        self._session.submit(write, write.done)
        return await write.future

    async def create_all(self, flows: Sequence[NewFlow]) -> list[FlowRecord | None]:
        writes = [Create(flow, self._session.future()) for flow in flows]
        for write in writes:
            self._session.submit(write, write.done)
        return await all_answers([write.future for write in writes])

    async def send(self, message: Message) -> None:
        write = Send(message, self._session.future())
        self._session.submit(write, write.done)
        await write.future

    async def move(
        self,
        flow_id: str,
        target: TaskStatus,
        *,
        reason: str = "",
        output: str | None = None,
        only: Collection[TaskStatus] | None = None,
    ) -> FlowRecord:
        return await asyncio.shield(
            self._session.write(
                "move", lambda tx: intake.move(tx, flow_id, target, reason=reason, output=output, only=only)
            )
        )

    async def reschedule(
        self, flow_id: str, *, at: float | None = None, delay_seconds: float | None = None
    ) -> FlowRecord:
        return await asyncio.shield(
            self._session.write("move", lambda tx: intake.reschedule(tx, flow_id, at, delay_seconds))
        )

    async def retry_now(self, flow_id: str) -> FlowRecord:
        return await asyncio.shield(self._session.write("retry", lambda tx: intake.retry_now(tx, flow_id)))

    async def delete(self, flow_id: str) -> bool:
        return await asyncio.shield(self._session.write("delete", lambda tx: intake.delete(tx, flow_id)))

    # -- leases ----------------------------------------------------------------------------------------------

    async def register(self, worker: WorkerRecord, *, lease_seconds: float) -> WorkerRecord:
        registering = self._session.write(
            "register", lambda tx: leases.register(tx, worker, lease_seconds), lease=True
        )
        self._session.warm_up()
        return await asyncio.shield(registering)

    async def renew(
        self, worker_id: str, *, lease_seconds: float, doing: dict[str, str] | None = None
    ) -> float:
        return await asyncio.shield(
            self._session.write(
                "renew", lambda tx: leases.renew(tx, worker_id, lease_seconds, doing), lease=True
            )
        )

    def keep_alive(self, worker_id: str, *, lease_seconds: float) -> None:
        self._session.keep(worker_id, lease_seconds)

    async def note_draining(self, worker_id: str) -> None:
        await asyncio.shield(
            self._session.write("draining", lambda tx: leases.note_draining(tx, worker_id), lease=True)
        )

    async def retire(self, worker_id: str) -> int:
        return await asyncio.shield(
            self._session.write("retire", lambda tx: leases.retire(tx, worker_id), lease=True)
        )

    async def reap(self) -> list[WorkerRecord]:
        # Look first: most of the time nobody died, and then nothing is written.
        _, lease_now = self._clock.read(self._clock.now())
        if not any(await self._session.read(lambda connection: leases.suspects(connection, lease_now))):
            return []
        return await asyncio.shield(self._session.write("reap", leases.reap))

    async def claim(self, request: ClaimRequest) -> list[ClaimedFlow]:
        taking = self._session.write("claim", lambda tx: claims.take(tx, request), exact=False)
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            # Whoever asked will never know what it owns. Give it back.
            taking.add_done_callback(functools.partial(self._give_back, request.worker))
            raise

    async def disown(self, worker_id: str, known: Sequence[tuple[str, int]]) -> Sequence[str]:
        known_here = frozenset(known)
        # Look first: most of the time it knows of them all, and then nothing is written.
        found = await self._session.read(lambda one: leases.unknown(one, worker_id, known_here))
        if found:
            await asyncio.shield(
                self._session.write("disown", lambda tx: leases.disown(tx, worker_id, found))
            )
        return tuple(flow_id for flow_id, _ in found)

    # -- catalog ---------------------------------------------------------------------------------------------

    async def find(self, flow_id: str) -> FlowRecord | None:
        return await self._session.read(lambda one: catalog.find(one, flow_id))

    async def history(self, flow_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        return await self._session.read(lambda one: catalog.history(one, flow_id, after, limit))

    async def inbox(self, flow_id: str) -> list[Received]:
        return await self._session.read(lambda one: catalog.unread(one, flow_id))

    async def has_key(self, message: Message) -> bool:
        return await self._session.read(lambda one: inbox.has_key(one, message))

    async def arrivals(self, worker_id: str, after: int) -> tuple[int, list[Received]]:
        cuts = self._session.cuts
        place = self._cursors.place(after, cuts)
        found = await self._session.read(lambda one: catalog.arrivals(one, worker_id, place))
        return self._cursors.answer(after, cuts, *found)

    async def ended_or_parked(self, flow_ids: Sequence[str]) -> tuple[list[FlowRecord], list[str]]:
        return await self._session.read(lambda one: catalog.ended_or_parked(one, flow_ids))

    async def lost(
        self, worker_id: str, epochs: Sequence[tuple[str, int]]
    ) -> list[tuple[str, TaskStatus | None]]:
        return await self._session.read(lambda one: catalog.lost(one, worker_id, epochs))

    async def count(self, where: FlowFilter) -> dict[TaskStatus, int]:
        return await self._session.read(lambda one: catalog.count(one, where))

    async def workers(self) -> list[WorkerRecord]:
        return await self._session.read(catalog.workers)

    async def next_wake(self, names: Sequence[str]) -> float | None:
        return await self._session.read(lambda one: catalog.next_wake(one, names))

    async def list(
        self, where: FlowFilter, *, limit: int = 100, after: str | None = None
    ) -> tuple[list[FlowRecord], str | None]:
        return await self._session.read(lambda one: catalog.page(one, where, limit, after))

    # -- hints -----------------------------------------------------------------------------------------------

    def subscribe(self, listener: Callable[[Hint], None]) -> Callable[[], None]:
        return self._hints.subscribe(listener)

    # -- inside ----------------------------------------------------------------------------------------------

    def _give_back(self, worker: str, taken: asyncio.Task[Any]) -> None:
        if taken.cancelled() or taken.exception() is not None or not taken.result():
            return
        flows = [(claimed.flow.id, claimed.lease.epoch) for claimed in taken.result()]
        with contextlib.suppress(LogClosed):
            self._session.write("release", lambda tx: leases.give_back(tx, worker, flows))
