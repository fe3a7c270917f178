"""The execution log on Redis or Valkey: the facade. Each facet's work is in the file that bears its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Self

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
from ergon.storage.hints import Hints
from ergon.storage.log import ExecutionLog
from ergon.storage.redis import catalog, claims, family, intake, leases, pages
from ergon.storage.redis.session import Session
from ergon.storage.redis.settings import parse


class RedisExecutionLog(ExecutionLog):
    """Flows on a Redis or Valkey server (6 or newer), or on a cluster, for any number of processes and machines.

    url: `redis://user:password@host:6379/0`, `rediss://` with TLS, `valkey://`, or `unix:///path/of/socket`.
    prefix: how the log's keys begin, `ergon` by default; several logs share a server by different ones.
    namespace: a log of its own beside the one of that prefix: keys of `acme` begin with `ergon/acme`. None by default.
    ephemeral: use a server that loses what it acknowledged (no append-only file, or one that evicts keys).
    replicas: how many replicas must have each write, in memory at least, before it counts as done; 0 by default.
    flushed: a write counts as done only once it is on disk, of the server and of those replicas, whatever `appendfsync`
        says: up to a second each. From Redis 7.2 on. False by default.
    busy_timeout_seconds: how long a write or a read waits for a server that cannot be reached, before `LogBusy`.
    require: refuse to open below that durability class; D3 is what `appendfsync always` gives.
    create: make a new log where there is none; False: connecting raises `LogRefused` then.

    An open log belongs to the event loop that connected it. Raises `LogRefused` for a URL that is none,
    `InvalidName` for a namespace no log can keep.
    """

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        prefix: str | None = None,
        namespace: str | None = None,
        ephemeral: bool | None = None,
        replicas: int | None = None,
        flushed: bool | None = None,
        busy_timeout_seconds: float = 30.0,
        require: str | None = None,
        create: bool = True,
    ) -> None:
        self._settings = parse(
            url,
            prefix=prefix,
            namespace=namespace,
            ephemeral=ephemeral,
            replicas=replicas,
            flushed=flushed,
            busy_timeout_seconds=busy_timeout_seconds,
            create=create,
        )
        self._require = check_class(require)
        self._hints = Hints()
        self._session = Session(self._settings, self._hints.tell)

    # -- life ------------------------------------------------------------------------------------------------

    async def connect(self) -> Self:
        await self._session.open(self._require)
        return self

    async def close(self) -> None:
        await self._session.close()

    @property
    def url(self) -> str:
        return self._settings.url

    @property
    def generation(self) -> str:
        """The id made with the log. Another one under the same URL is another log."""
        return self._session.partitions.generation

    async def durability(self) -> Durability:
        return await self._session.measure()

    def now(self) -> float:
        return self._session.time.now()

    # -- journal ---------------------------------------------------------------------------------------------

    def submit(self, commit: Commit, done: Callable[[BaseException | None], None]) -> None:
        self._session.submit(commit, done)

    # -- intake ----------------------------------------------------------------------------------------------

    async def create(self, flow: NewFlow) -> FlowRecord | None:
        return await intake.create(self._session, flow)

    async def send(self, message: Message) -> None:
        await intake.send(self._session, message)

    async def move(
        self,
        flow_id: str,
        target: TaskStatus,
        *,
        reason: str = "",
        output: str | None = None,
        only: Collection[TaskStatus] | None = None,
    ) -> FlowRecord:
        return await intake.move(self._session, flow_id, target, reason=reason, output=output, only=only)

    async def reschedule(
        self, flow_id: str, *, at: float | None = None, delay_seconds: float | None = None
    ) -> FlowRecord:
        return await intake.reschedule(self._session, flow_id, at, delay_seconds)

    async def retry_now(self, flow_id: str) -> FlowRecord:
        return await intake.retry_now(self._session, flow_id, self.now())

    async def delete(self, flow_id: str) -> bool:
        return await family.delete(self._session, flow_id)

    # -- leases ----------------------------------------------------------------------------------------------

    async def register(self, worker: WorkerRecord, *, lease_seconds: float) -> WorkerRecord:
        return await leases.register(self._session, worker, lease_seconds)

    async def renew(
        self, worker_id: str, *, lease_seconds: float, doing: dict[str, str] | None = None
    ) -> float:
        return await leases.renew(self._session, worker_id, lease_seconds, doing)

    def keep_alive(self, worker_id: str, *, lease_seconds: float) -> None:
        self._session.keep_alive(worker_id, lease_seconds)

    async def note_draining(self, worker_id: str) -> None:
        await leases.note_draining(self._session, worker_id)

    async def retire(self, worker_id: str) -> int:
        return await leases.retire(self._session, worker_id)

    async def reap(self) -> list[WorkerRecord]:
        return await leases.reap(self._session, self.now())

    async def claim(self, request: ClaimRequest) -> list[ClaimedFlow]:
        return await claims.take(self._session, request)

    async def disown(self, worker_id: str, known: Sequence[tuple[str, int]]) -> Sequence[str]:
        found = await leases.unknown(self._session, worker_id, frozenset(known))
        return tuple(await leases.disown(self._session, worker_id, found)) if found else ()

    # -- catalog ---------------------------------------------------------------------------------------------

    async def find(self, flow_id: str) -> FlowRecord | None:
        return await catalog.find(self._session, flow_id)

    async def history(self, flow_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        return await catalog.history(self._session, flow_id, after, limit)

    async def inbox(self, flow_id: str) -> list[Received]:
        return await catalog.unread(self._session, flow_id)

    async def has_key(self, message: Message) -> bool:
        return await catalog.has_key(self._session, message)

    async def arrivals(self, worker_id: str, after: int) -> tuple[int, list[Received]]:
        return await catalog.arrivals(self._session, worker_id, after)

    async def ended_or_parked(self, flow_ids: Sequence[str]) -> tuple[list[FlowRecord], list[str]]:
        return await catalog.ended_or_parked(self._session, flow_ids)

    async def lost(
        self, worker_id: str, epochs: Sequence[tuple[str, int]]
    ) -> list[tuple[str, TaskStatus | None]]:
        return await catalog.lost(self._session, worker_id, epochs)

    async def count(self, where: FlowFilter) -> dict[TaskStatus, int]:
        return await pages.count(self._session, where)

    async def workers(self) -> list[WorkerRecord]:
        return await catalog.workers(self._session)

    async def next_wake(self, names: Sequence[str]) -> float | None:
        return await catalog.next_wake(self._session, names)

    async def list(
        self, where: FlowFilter, *, limit: int = 100, after: str | None = None
    ) -> tuple[list[FlowRecord], str | None]:
        return await pages.page(self._session, where, limit, after)

    # -- hints -----------------------------------------------------------------------------------------------

    def subscribe(self, listener: Callable[[Hint], None]) -> Callable[[], None]:
        return self._hints.subscribe(listener)
