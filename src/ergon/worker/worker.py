"""`Worker`: the part of a program that executes flows.

    async with Worker(log, flows=[process]):
        ...

`await wait_told_to_stop()` in the block waits for SIGTERM or Ctrl-C; leaving the block drains the worker.

Any number of workers, in one process or many, may share a log. Each owns the flows it has claimed for as long as it
renews its lease; when it dies, another goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import os
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from ergon.core.checks import check_log, check_names, check_seconds, check_whole, is_iterable
from ergon.core.commit import ClaimRequest, Hint
from ergon.core.durability import SURVIVES
from ergon.core.names import check_name, check_tags
from ergon.core.versions import VersionSet
from ergon.errors import LeaseLost, LogClosed, LogTooNew, StoreError, UsageError
from ergon.executor.host import Host
from ergon.executor.incarnation import Incarnation
from ergon.executor.refusals import REMIND_SECONDS
from ergon.flows.flow import BoundFlow, Flow
from ergon.flows.types import FlowSource
from ergon.storage import eager
from ergon.storage.log import ExecutionLog
from ergon.worker.claimer import NEW_LOG_SECONDS, Claimer
from ergon.worker.eager import EagerStarts
from ergon.worker.registry import FlowRegistry
from ergon.worker.residents import Residents
from ergon.worker.service import every
from ergon.worker.sources import SignalSource, forward

logger = logging.getLogger("ergon.worker")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """What seldom needs changing."""

    capacity: int = 1_000
    """Flows in memory at once. Flows that only wait leave memory, so far more can be under way."""
    lease_seconds: float = 10.0
    """How long after a worker's machine vanished another takes its flows over. (A process that died on the same host
    is noticed at once.)"""
    evict_after_seconds: float = 1.0
    """A flow that has only waited for this long leaves memory."""
    drain_seconds: float = 30.0
    """How long a shutdown waits for running steps."""
    poll_seconds: float = 1.0
    """How often to look when no hint comes. Hints make it far sooner; this bounds what a lost hint costs."""
    reap_seconds: float = 1.0
    """How often to look for dead workers."""
    step_threads: int | None = None
    """Threads for plain `def` steps; None: the standard library's default, cores + 4 and at most 32."""
    claims_stalled_max: int = 20
    """A flow is parked when its worker died this often in a row without it recording anything."""

    def __post_init__(self) -> None:
        for field in ("lease_seconds", "poll_seconds", "reap_seconds"):
            check_seconds(field, getattr(self, field))
        check_seconds("evict_after_seconds", self.evict_after_seconds, endless=True)
        check_seconds("drain_seconds", self.drain_seconds, zero=True, endless=True)
        check_whole("capacity", self.capacity, least=1)
        check_whole("claims_stalled_max", self.claims_stalled_max, least=1)
        if self.step_threads is not None:
            check_whole("step_threads", self.step_threads, least=1)


class Worker:
    """Executes flows it has code for.

    log: a connected execution log.
    name: for people; need not be unique.
    flows: functions decorated with @flow and @flow_type classes. More can be added with `register` before `start`.
        In a variable of its own let it be a tuple: of a list of different flows, mypy forgets what they are.
    queues: which queues to take from. Default: "default".
    versions: which versions of flows this code runs: a name such as "1.4.2", a range such as ">=1.2,<2", or several of
    either; default: any. A flow without a version fits every worker. Raises `UsageError` for what is neither.
    tags: what this worker has, such as `("gpu",)`. A flow with tags is taken only by workers that have all of them; a
    worker also takes flows without tags. To keep those off it, give them another queue. Default: none.
    enable_timers: False leaves flows whose timers are due to other workers.
    signal_sources: other systems to poll for signals.
    """

    def __init__(
        self,
        log: ExecutionLog,
        name: str = "worker",
        *,
        flows: Iterable[FlowSource] = (),
        queues: Sequence[str] = ("default",),
        versions: Sequence[str] | str | None = None,
        tags: Iterable[str] = (),
        enable_timers: bool = True,
        signal_sources: Iterable[SignalSource] = (),
        options: WorkerOptions | None = None,
    ) -> None:
        check_log(log)
        self.name = check_name("worker name", name)
        if isinstance(flows, Flow | BoundFlow | type) or not is_iterable(flows):
            raise UsageError(f"flows={flows!r}: give several, such as a tuple; for one write flows=(it,)")
        self.registry = FlowRegistry(flows)
        self.options = options if options is not None else WorkerOptions()
        self._log = log
        self._queues = check_names("queue", queues)
        self._versions = (
            (versions,) if isinstance(versions, str) else tuple(versions) if versions is not None else None
        )
        if self._versions is not None:
            VersionSet.parse(self._versions)  # refuses what means nothing
        self._tags = check_tags("worker tag", tags)
        self._enable_timers = enable_timers
        self._signal_sources = tuple(signal_sources)
        self._host: Host | None = None
        self._residents: Residents | None = None
        self._claimer: Claimer | None = None
        self._incarnation: Incarnation | None = None
        self._tasks: list[asyncio.Task[LogClosed | LeaseLost]] = []
        self._unsubscribe: Any = None
        self._withdraw: Callable[[], None] = lambda: None
        self._restart: asyncio.Task[None] | None = None
        self._starting = False
        self._stopping = False
        self._stopped = asyncio.Event()

    async def register(self, *flows: FlowSource) -> None:
        """Add flows or `@flow_type` classes. Raises `DuplicateRegistration`, and `UsageError` once started."""
        if self._incarnation is not None or self._starting:
            raise UsageError(f"worker {self.name!r} has started; register its flows before")
        for flow in flows:
            self.registry.add(flow)

    async def start(self) -> WorkerHandle:
        """Begin to execute flows. Raises `UsageError` when nothing is registered.

        The logger `ergon.worker` says on which log, and what that survives by its live settings.
        """
        if self._incarnation is not None or self._starting:
            raise UsageError(f"worker {self.name!r} has started already")
        if not self.registry.names:
            raise UsageError(
                f"worker {self.name!r} has no flows: pass flows=[...] or await worker.register(...)"
            )
        self._host = Host(self._log, may_start=self._may_start, threads_max=self.options.step_threads)
        self._residents = Residents(
            self._log,
            self._host,
            self.registry,
            capacity=self.options.capacity,
            evict_after_seconds=self.options.evict_after_seconds,
        )
        self._unsubscribe = self._log.subscribe(self._on_hint)
        self._starting = True
        try:
            await self._tell_durability()
            await self._begin()
        except BaseException:
            self._unsubscribe()
            self._host.close()
            self._host = self._residents = None
            raise
        finally:
            self._starting = False
        return WorkerHandle(self)

    async def _tell_durability(self) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        found = await self._log.durability()
        settings = ", ".join(f"{name}={value.partition(';')[0]}" for name, value in found.settings.items())
        logger.info(
            "worker %s (pid %d) on %s, durability %s: survives %s (%s)",
            self.name,
            os.getpid(),
            self._log.url,
            found.level,
            SURVIVES[found.level],
            settings,
        )

    async def _begin(self) -> None:
        """A new incarnation: register, then free what dead workers held, and claim."""
        assert self._residents is not None
        options = self.options
        incarnation = Incarnation(
            self._log,
            self.name,
            self.registry.names,
            options.lease_seconds,
            queues=self._queues,
            versions=self._versions,
            tags=self._tags,
            on_lost=self._lost,
            doing=self._residents.doing,
        )
        await incarnation.register()
        # From here on without an await: all of the new incarnation is in place, or nothing.
        self._incarnation = incarnation
        if self._host is not None:
            self._host.may_start = incarnation.may_start  # asked before each step, so without a detour
        request = ClaimRequest(
            worker=incarnation.id,
            names=self.registry.names,
            queues=self._queues,
            versions=self._versions,
            tags=self._tags,
            timeouts=self.registry.timeouts,
            claims_stalled_max=options.claims_stalled_max,
        )
        self._claimer = claimer = Claimer(
            self._log,
            self._residents,
            request,
            poll_seconds=options.poll_seconds,
            disown_seconds=options.lease_seconds,
            enable_timers=self._enable_timers,
        )
        self._residents.belong_to(incarnation.id, claimer.look)
        if self._host is not None and self._log.starts_eagerly:
            self._withdraw()
            starts = EagerStarts(self._host, self._residents, claimer, request, incarnation)
            self._withdraw = eager.offer(self._log, starts)
        self._tasks = [asyncio.create_task(service) for service in self._services(claimer, self._residents)]
        for task in self._tasks:
            task.add_done_callback(self._service_ended)

    def _services(
        self, claimer: Claimer, residents: Residents
    ) -> Iterator[Coroutine[None, None, LogClosed | LeaseLost]]:
        """What goes on beside the flows for as long as an incarnation lives."""
        options = self.options
        first_reap = NEW_LOG_SECONDS if self._log.is_new else 0.0
        yield every(0.0, claimer.tick, name="claimer")
        yield every(options.reap_seconds, self._reap, name="reaper", first=first_reap)
        yield every(options.evict_after_seconds / 4, residents.sweep, name="eviction")
        yield every(options.poll_seconds, residents.fetch, name="inbox")
        yield every(options.poll_seconds, residents.drop_lost, name="flows taken away")
        for source in self._signal_sources:
            yield self._forward(source)

    async def _forward(self, source: SignalSource) -> LogClosed | LeaseLost:
        name = f"signal source {type(source).__name__}"
        return await every(
            self.options.poll_seconds, functools.partial(forward, self._log, source), name=name, first=0.0
        )

    async def _reap(self) -> None:
        """Free what dead workers held, unless our own lease is in doubt.

        After a freeze with nobody else around we would declare ourselves dead and run our open steps again, though
        the renewal, which is on its way, would have saved them.
        """
        if not self._may_start():
            return
        for dead in await self._log.reap():
            logger.warning(
                "worker %s (pid %d on %s) is lost: it died, was frozen or cut off. Its flows go on with whoever takes "
                "them",
                dead.name,
                dead.pid,
                dead.host,
            )

    def _may_start(self) -> bool:
        return self._incarnation is not None and self._incarnation.may_start()

    def _on_hint(self, hint: Hint) -> None:
        if (
            self._host is not None and self._host.loop.is_closed()
        ):  # nobody shut the worker down; the log lives on
            self._unsubscribe()
            return
        if self._claimer is not None:
            self._claimer.on_hint(hint)
        if self._residents is not None:
            self._residents.on_hint(hint)

    def _lost(self) -> None:
        """The log declared this incarnation dead: drop everything, come back as a new one."""
        if self._residents is None or self._incarnation is None or not self._incarnation.lost:
            return
        self._end_services()
        self._residents.abort_all("its worker's lease was lost")
        if not self._stopping and (self._restart is None or self._restart.done()):
            self._restart = asyncio.create_task(self._begin_again())

    def _service_ended(self, service: asyncio.Task[LogClosed | LeaseLost]) -> None:
        if service not in self._tasks:
            return  # we have ended it
        if service.cancelled():
            if self._host is not None:
                self._host.program_ends = True
        elif isinstance(service.result(), LogClosed):
            self._log_closed()

    def _log_closed(self) -> None:
        """Somebody has closed the log under us, and may open it again: no flow is ours any more, and nobody's work."""
        assert self._residents is not None
        assert self._incarnation is not None
        logger.error(
            "worker %s does nothing more: its log was closed while it ran. Shut workers down before you close the log, "
            "best by `async with` for both, the log first",
            self.name,
        )
        self._end_services()
        self._withdraw()
        self._incarnation.abandon()
        self._residents.abort_all("its log was closed")

    def _end_services(self) -> None:
        services, self._tasks = self._tasks, []  # so that what we cancel is not taken for what others did
        for service in services:
            service.cancel()
        if self._claimer is not None:
            self._claimer.stop()

    async def _begin_again(self) -> None:
        """As a new incarnation, as soon as the log takes it."""
        told_at = -math.inf
        while True:
            try:
                await self._begin()
            except LogClosed:
                return
            except LogTooNew as error:
                logger.error("worker %s does nothing more: %s", self.name, error)  # noqa: TRY400 - one line says it
                return
            except StoreError as error:
                if (now := time.monotonic()) - told_at >= REMIND_SECONDS:
                    told_at = now
                    logger.warning(
                        "worker %s could not register again: %s; trying every second", self.name, error
                    )
                await asyncio.sleep(1)
            except Exception:
                logger.exception("worker %s could not register again; trying in 1 s", self.name)
                await asyncio.sleep(1)
            else:
                return

    async def shutdown(self, deadline_seconds: float | None = None) -> None:
        """Stop claiming, let running steps end (for at most `deadline_seconds`, default 30), give everything back.

        A plain `def` step cannot be stopped: one that is still on its thread after the deadline is abandoned, and the
        log says so. It does not keep the program from ending; its flow is another worker's, where it runs again.
        Called again, it waits for the first call to be over.
        """
        if self._incarnation is None:
            return
        if self._stopping:
            await self._stopped.wait()
            return
        self._stopping = True
        try:
            await self._shut_down(
                self.options.drain_seconds if deadline_seconds is None else deadline_seconds
            )
        finally:
            self._stopped.set()

    async def _shut_down(self, deadline_seconds: float) -> None:
        assert self._residents is not None
        assert self._host is not None
        assert self._incarnation is not None
        self._withdraw()
        self._host.draining = True  # from here on no new step starts
        ends_at = self._host.loop.time() + deadline_seconds
        self._host.in_background(self._note_draining(self._incarnation.id))
        ending = [*self._tasks, *([self._restart] if self._restart else [])]
        if self._restart is not None:
            self._restart.cancel()
        self._end_services()
        fetching = asyncio.create_task(every(self.options.poll_seconds, self._residents.fetch, name="inbox"))
        try:
            await asyncio.gather(*ending, return_exceptions=True)
            interrupted = await self._residents.drain(deadline_seconds)
            if interrupted:
                flows = "a flow was" if interrupted == 1 else f"{interrupted} flows were"
                logger.warning("worker %s: %s interrupted in a step; it runs again", self.name, flows)
        except asyncio.CancelledError:
            ends_at = (
                self._host.loop.time()
            )  # such as a second Ctrl-C: who breaks a shutdown off waits for no thread
            raise
        finally:
            fetching.cancel()
            self._residents.abort_all("the worker was shut down")
            try:
                await self._host.finish_background()
                await self._incarnation.retire()
                self._unsubscribe()
                await self._host.wait_elsewhere(ends_at)
            finally:
                self._host.close()

    async def _note_draining(self, incarnation: str) -> None:
        with contextlib.suppress(StoreError):  # for people only
            await self._log.note_draining(incarnation)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.shutdown()


class WorkerHandle:
    """A started worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    @property
    def name(self) -> str:
        """The worker's name."""
        return self._worker.name

    async def shutdown(self, deadline_seconds: float | None = None) -> None:
        """Stop claiming, let running steps end, give everything back."""
        await self._worker.shutdown(deadline_seconds)
