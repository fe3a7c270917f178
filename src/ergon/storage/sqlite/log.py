"""The execution log on SQLite: the facade. Each facet's work is in the file that bears its name.

Writes go to one thread (`writer.py`), reads to another (`reader.py`); this file only hands them over and waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import quote

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
    given_back,
)
from ergon.core.durability import check_class
from ergon.core.history import Event
from ergon.core.namespaces import OPTION, check_namespace
from ergon.core.status import TaskStatus
from ergon.errors import LogClosed, LogRefused
from ergon.storage.answers import all_answers, hear_error
from ergon.storage.clock import Clock, SystemClock
from ergon.storage.hints import Hints
from ergon.storage.log import ExecutionLog
from ergon.storage.sqlite import catalog, claims, durability, inbox, intake, leases
from ergon.storage.sqlite.connection import LEVELS, Settings, Synchronous
from ergon.storage.sqlite.namespaces import beside
from ergon.storage.sqlite.session import Session
from ergon.storage.sqlite.writes import Create, Send, Unasked, Write

T = TypeVar("T")


class SqliteExecutionLog(ExecutionLog):
    """Flows in one SQLite file, for any number of processes on one machine.

    `synchronous` is SQLite's setting; FULL survives power loss. `busy_timeout_seconds` is how long a write waits for
    other processes before it raises `LogBusy`. `require="D3"` refuses to open below that durability class; D3 is the
    most that a file on one machine can give. `create=False`: connecting raises `LogRefused` when there is no file.
    `namespace`: a log of its own in a file beside that one: `acme` of `orders.db` is in `orders__acme.db`.
    Raises `LogRefused` for settings that do not exist, `InvalidName` for a namespace no log can keep.

    An open log belongs to the event loop that connected it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str | None = None,
        synchronous: Synchronous = "FULL",
        busy_timeout_seconds: float = 30.0,
        require: str | None = None,
        allow_network_filesystem: bool = False,
        create: bool = True,
        clock: Clock | None = None,
    ) -> None:
        if synchronous not in LEVELS:
            raise LogRefused(f"synchronous={synchronous!r} is unknown; choose one of {', '.join(LEVELS)}")
        memory = os.fspath(path) == ":memory:"
        self._base, self._namespace = Path(path).absolute(), check_namespace(namespace or "")
        self._settings = Settings(
            path=None if memory else beside(self._base, self._namespace),
            synchronous=synchronous,
            busy_timeout_seconds=busy_timeout_seconds,
            allow_network_filesystem=allow_network_filesystem,
            create=create,
        )
        self._require = check_class(require)
        self._clock = clock or SystemClock()
        self._hints = Hints()
        self._session = Session(self._settings, self._clock, self._hints.tell)

    @classmethod
    async def in_memory(cls, *, clock: Clock | None = None) -> SqliteExecutionLog:
        """Open a log on a private database in memory, gone when it is closed."""
        return await SqliteExecutionLog(":memory:", clock=clock).connect()

    # -- life ------------------------------------------------------------------------------------------------

    async def connect(self) -> Self:
        await self._session.open(self._require)
        return self

    async def close(self) -> None:
        await self._session.close()

    @property
    def url(self) -> str:
        place = f"sqlite://{quote(str(self._base))}" if self.path is not None else "memory:"
        return f"{place}?{OPTION}={self._namespace}" if self._namespace else place

    @property
    def path(self) -> Path | None:
        """The file, the namespace's own where there is one; None in memory."""
        return self._settings.path

    @property
    def generation(self) -> str:
        """The id made with the file. Another one under the same path is another log, such as a restored backup."""
        return self._session.generation

    async def durability(self) -> Durability:
        return await self._session.on_writer(lambda writing: durability.measure(writing, self._settings))

    def now(self) -> float:
        return self._clock.wall()

    # -- journal ---------------------------------------------------------------------------------------------

    def submit(self, commit: Commit, done: Callable[[BaseException | None], None]) -> None:
        self._session.submit(commit, done)

    # -- intake ----------------------------------------------------------------------------------------------

    @property
    def is_new(self) -> bool:
        return self._session.is_new

    async def create(self, flow: NewFlow) -> FlowRecord | None:
        (write,) = self._creates((flow,))
        return await write.future

    async def create_all(self, flows: Sequence[NewFlow]) -> list[FlowRecord | None]:
        return await all_answers([write.future for write in self._creates(flows)])

    starts_eagerly: ClassVar[bool] = True

    async def create_claimed(self, flows: Sequence[NewFlow]) -> list[ClaimedFlow | FlowRecord | None]:
        writes = self._creates(flows)
        answered = asyncio.ensure_future(all_answers([write.future for write in writes]))
        answered.add_done_callback(hear_error)
        try:
            found = await asyncio.shield(answered)
        except BaseException:
            # Cancelled, or one was refused: whoever asked will never know of the others. Give them back.
            for write in writes:
                write.future.add_done_callback(functools.partial(self._give_back_new, write))
            raise
        return [
            write.claimed if existing is None else existing
            for write, existing in zip(writes, found, strict=True)
        ]

    def _creates(self, flows: Sequence[NewFlow]) -> list[Create]:
        self._session.is_new = False
        writes = [Create(flow, self._session.future()) for flow in flows]
        for write in writes:
            self._session.submit(write, write.done)
        return writes

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
        return await self._write(
            "move", lambda tx: intake.move(tx, flow_id, target, reason=reason, output=output, only=only)
        )

    async def reschedule(
        self, flow_id: str, *, at: float | None = None, delay_seconds: float | None = None
    ) -> FlowRecord:
        return await self._write("move", lambda tx: intake.reschedule(tx, flow_id, at, delay_seconds))

    async def retry_now(self, flow_id: str) -> FlowRecord:
        return await self._write("retry", lambda tx: intake.retry_now(tx, flow_id))

    async def delete(self, flow_id: str) -> bool:
        return await self._write("delete", lambda tx: intake.delete(tx, flow_id))

    # -- leases ----------------------------------------------------------------------------------------------

    async def register(self, worker: WorkerRecord, *, lease_seconds: float) -> WorkerRecord:
        return await self._write("register", lambda tx: leases.register(tx, worker, lease_seconds))

    async def renew(
        self, worker_id: str, *, lease_seconds: float, doing: dict[str, str] | None = None
    ) -> float:
        return await self._write("renew", lambda tx: leases.renew(tx, worker_id, lease_seconds, doing))

    def keep_alive(self, worker_id: str, *, lease_seconds: float) -> None:
        self._session.submit_from_thread(
            Unasked("keep", lambda tx: leases.keep(tx, worker_id, lease_seconds))
        )

    async def note_draining(self, worker_id: str) -> None:
        await self._write("draining", lambda tx: leases.note_draining(tx, worker_id))

    async def retire(self, worker_id: str) -> int:
        return await self._write("retire", lambda tx: leases.retire(tx, worker_id))

    async def reap(self) -> list[WorkerRecord]:
        # Look first: most of the time nobody died, and then nothing is written.
        now, boot = self._clock.wall(), self._clock.boot()
        if not await self._session.read(lambda reading: leases.suspects(reading, now, boot)):
            return []
        return await self._write("reap", leases.reap)

    async def claim(self, request: ClaimRequest) -> list[ClaimedFlow]:
        self._session.is_new = False
        write = Write("claim", lambda tx: claims.take(tx, request), self._session.future())
        self._session.submit(write, write.done)
        try:
            taken = await asyncio.shield(write.future)
            new = claims.new_flows(taken, request.worker)
            if new is not None:
                return new
            flows, unreadable = await self._session.read(
                lambda reading: claims.load(reading, request.worker, taken.nums)
            )
            if unreadable:
                await self._write("park", lambda tx: claims.park_unreadable(tx, request.worker, unreadable))
            return flows
        except BaseException:
            # Cancelled, or the reading failed: whoever asked will never know what it owns. Give it back.
            write.future.add_done_callback(functools.partial(self._give_back, request.worker))
            raise

    async def disown(self, worker_id: str, known: Sequence[tuple[str, int]]) -> Sequence[str]:
        known_here = frozenset(known)
        # Look first: most of the time it knows of them all, and then nothing is written.
        found = await self._session.read(lambda reading: leases.unknown(reading, worker_id, known_here))
        if found:
            await self._write("disown", lambda tx: leases.disown(tx, worker_id, list(found)))
        return tuple(found.values())

    # -- catalog ---------------------------------------------------------------------------------------------

    async def find(self, flow_id: str) -> FlowRecord | None:
        return await self._session.read(lambda reading: catalog.find(reading, flow_id))

    async def history(self, flow_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        return await self._session.read(lambda reading: catalog.history(reading, flow_id, after, limit))

    async def inbox(self, flow_id: str) -> list[Received]:
        return await self._session.read(lambda reading: catalog.unread(reading, flow_id))

    async def has_key(self, message: Message) -> bool:
        return await self._session.read(lambda reading: inbox.has_key(reading, message))

    async def arrivals(self, worker_id: str, after: int) -> tuple[int, list[Received]]:
        return await self._session.read(lambda reading: catalog.arrivals(reading, worker_id, after))

    async def ended_or_parked(self, flow_ids: Sequence[str]) -> tuple[list[FlowRecord], list[str]]:
        return await self._session.read(lambda reading: catalog.ended_or_parked(reading, flow_ids))

    async def lost(
        self, worker_id: str, epochs: Sequence[tuple[str, int]]
    ) -> list[tuple[str, TaskStatus | None]]:
        return await self._session.read(lambda reading: catalog.lost(reading, worker_id, epochs))

    async def count(self, where: FlowFilter) -> dict[TaskStatus, int]:
        return await self._session.read(lambda reading: catalog.count(reading, where))

    async def workers(self) -> list[WorkerRecord]:
        return await self._session.read(catalog.workers)

    async def next_wake(self, names: Sequence[str]) -> float | None:
        return await self._session.read(lambda reading: catalog.next_wake(reading, names))

    async def list(
        self, where: FlowFilter, *, limit: int = 100, after: str | None = None
    ) -> tuple[list[FlowRecord], str | None]:
        return await self._session.read(lambda reading: catalog.page(reading, where, limit, after))

    # -- hints -----------------------------------------------------------------------------------------------

    def subscribe(self, listener: Callable[[Hint], None]) -> Callable[[], None]:
        return self._hints.subscribe(listener)

    # -- inside ----------------------------------------------------------------------------------------------

    async def _write(self, name: str, apply: Callable[[Any], T]) -> T:
        write: Write[T] = Write(name, apply, self._session.future())
        self._session.submit(write, write.done)
        return await write.future

    def _give_back_new(self, write: Create, answer: asyncio.Future[Any]) -> None:
        if not answer.cancelled() and answer.exception() is None and write.claimed is not None:
            back = given_back(write.flow.id, write.claimed.lease)
            with contextlib.suppress(LogClosed):
                self._session.submit(back, lambda _: None)

    def _give_back(self, worker: str, taken: asyncio.Future[Any]) -> None:
        if taken.cancelled() or taken.exception() is not None or not taken.result().nums:
            return
        with contextlib.suppress(LogClosed):
            write = Write(
                "release",
                lambda tx: leases.give_back(tx, worker, taken.result().nums),
                self._session.future(),
            )
            self._session.submit(write, lambda _: None)


def InMemoryExecutionLog(*, clock: Clock | None = None) -> SqliteExecutionLog:  # noqa: N802 - reads as a class
    """Make the same log on a private database in memory: durability D0, for tests and trials."""
    return SqliteExecutionLog(":memory:", clock=clock)
