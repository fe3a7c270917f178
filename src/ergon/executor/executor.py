"""`Executor`: run one flow here and now, in the calling program, without a worker.

The flow is as durable as on a worker: it is created (or taken up) in the log, owned by an incarnation with a lease,
and its history grows with every step. When it can only wait, it leaves memory and `run` returns `Suspended`; run it
again, or let a worker go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar, overload

from ergon.core.checks import check_log
from ergon.core.codec import encode
from ergon.core.commit import ClaimedFlow, ClaimRequest, FlowRecord, Hint, NewFlow, Settled
from ergon.core.conflict import id_conflict
from ergon.core.failure import rebuild
from ergon.core.names import check_name
from ergon.core.status import TaskStatus
from ergon.errors import (
    FlowCancelled,
    FlowNotFound,
    FlowParked,
    IllegalMove,
    LeaseLost,
    LogClosed,
    NotInFlow,
    StoreError,
    UsageError,
)
from ergon.executor.doing import Doing
from ergon.executor.host import Host
from ergon.executor.incarnation import Incarnation
from ergon.executor.outcome import Completed, Outcome, Suspended
from ergon.executor.run import FlowRun
from ergon.executor.sentences import read_waits, waits_sentence
from ergon.flows.context import current_machine, step_context
from ergon.flows.flow import BoundFlow, FlowCall
from ergon.flows.types import MARK, FlowObject, flow_call_of, flows_of
from ergon.storage.log import ExecutionLog

logger = logging.getLogger("ergon.executor")

T = TypeVar("T", bound=FlowCall[Any] | BoundFlow[..., Any] | FlowObject)
R = TypeVar("R")

LEASE_SECONDS: Final = 10.0
BODY_GRACE_SECONDS: Final = 0.02
COMPUTING_LOOK_SECONDS: Final = 0.1
POLL_SECONDS: Final = 1.0
"""How often to look for messages when no hint comes."""


class Executor(Generic[T]):
    """Runs one flow by its id.

        executor = Executor(OrderProcessor("ORD-1", 100.0), log, "order-1")
        outcome = await executor.run(lambda order: order.run())

    flow: an object of a `@flow_type` class, or a flow bound to its arguments.
    log: a connected execution log.
    flow_id: the flow's id; running the same id again goes on where it stopped, or returns the recorded result.
    """

    def __init__(self, flow: T, log: ExecutionLog, flow_id: str) -> None:
        check_log(log)
        self._target = flow
        self._log = log
        self.flow_id = check_name("flow id", flow_id)

    @overload
    async def run(self, entry: Callable[[T], Coroutine[Any, Any, R]]) -> Outcome[R]: ...
    @overload
    async def run(self: Executor[FlowCall[R]], entry: None = None) -> Outcome[R]: ...
    @overload
    async def run(self, entry: None = None) -> Outcome[Any]: ...
    async def run(self, entry: Callable[[Any], Coroutine[Any, Any, Any]] | None = None) -> Outcome[Any]:
        """Run until the flow ends or can only wait.

        entry: which flow of the object to run, `lambda f: f.process()`; needless when it has only one.
        Returns `Completed(result)` or `Suspended(reason)`; raises the error the flow failed with, `FlowCancelled`,
        `FlowParked`, `IllegalMove` while another worker runs it, and `LeaseLost` when it was paused or taken over
        while it ran here. A flow that is paused or killed from elsewhere stops here within about a second.
        """
        if current_machine() is not None or step_context.get() is not None:
            raise NotInFlow("Executor.run inside a flow or step: use invoke(child) to start a child flow.")
        call = self._call(entry)
        runs: list[FlowRun] = []
        async with Incarnation(
            self._log, f"executor:{self.flow_id}", (call.flow.name,), LEASE_SECONDS, doing=Doing(lambda: runs)
        ) as incarnation:
            claimed = await self._take_up(call, incarnation)
            if not isinstance(claimed, ClaimedFlow):
                return self._recorded(claimed, call)
            return await self._run(claimed, call, incarnation, runs)

    def _call(self, entry: Callable[[Any], Coroutine[Any, Any, Any]] | None) -> FlowCall[Any]:
        if entry is None:
            return flow_call_of(self._target)
        return _chosen(self._target, entry)

    async def _take_up(self, call: FlowCall[R], incarnation: Incarnation) -> ClaimedFlow | FlowRecord:
        """Own the flow: create it, or claim it; one that ended or has nothing to do yet comes back as its record."""
        new = NewFlow(
            id=self.flow_id,
            name=call.flow.name,
            input=call.input,
            queue=call.flow.options.queue,
            priority=call.flow.options.priority,
            timeout_seconds=call.flow.options.timeout,
            owner=incarnation.id,
            tags=call.flow.options.tags,
        )
        (existing,) = await self._log.create_claimed([new])
        if isinstance(existing, ClaimedFlow):
            return existing
        if existing is None:
            raise LeaseLost(f"flow {self.flow_id!r} was taken away as soon as it was created here")
        if existing.name != new.name or not call.fits(existing.input):
            raise id_conflict(existing, new)
        if existing.status.is_terminal or existing.status is TaskStatus.PARKED:
            return existing
        await self._log.reap()
        timeout = call.flow.options.timeout
        request = ClaimRequest(
            worker=incarnation.id,
            names=(call.flow.name,),
            limit=1,
            flow_id=self.flow_id,
            timeouts={} if timeout is None else {call.flow.name: timeout},
        )
        claims = await self._log.claim(request)
        if claims:
            return claims[0]
        record = await self._log.find(self.flow_id)
        if record is None:
            raise FlowNotFound(self.flow_id)
        if record.status.is_terminal or record.status in (TaskStatus.PARKED, TaskStatus.SUSPENDED):
            return record
        if record.status is TaskStatus.PENDING and record.wake_at is not None:
            start = encode([{"kind": "start", "name": "", "due": record.wake_at}])
            return record._replace(status=TaskStatus.SUSPENDED, reason=start)
        if record.status is TaskStatus.PAUSED:
            raise IllegalMove(
                f"flow {self.flow_id!r} is paused; resume it before it is run here: "
                f"`await Scheduler(log).handle({self.flow_id!r}).resume()`, or `ergon resume` in a shell"
            )
        raise IllegalMove(
            f"flow {self.flow_id!r} is {record.status}, owned by {record.owner}; it cannot be run here now"
        )

    async def _run(
        self, claimed: ClaimedFlow, call: FlowCall[R], incarnation: Incarnation, runs: list[FlowRun]
    ) -> Outcome[R]:
        host = Host(self._log, may_start=incarnation.may_start)
        ended: asyncio.Future[Settled | None] = host.loop.create_future()

        def on_end(_run: FlowRun, settled: Settled | None) -> None:
            if not ended.done():
                ended.set_result(settled)

        run = FlowRun(claimed, call.flow, host, on_end=on_end, on_idle=_leave)
        incarnation.attach(run)
        runs.append(run)
        listening = asyncio.create_task(self._listen(run, incarnation), name="ergon-inbox")
        try:
            run.start()
            settled = await ended
            await host.finish_background()
        except asyncio.CancelledError:
            run.give_back()
            await asyncio.wait({ended}, timeout=LEASE_SECONDS)
            raise
        finally:
            listening.cancel()
            host.close()
        if settled is None:
            return await self._taken_away(call)
        return self._outcome(settled.status, settled.output, settled.reason, call)

    async def _listen(self, run: FlowRun, incarnation: Incarnation) -> None:
        """Hand the flow what comes for it while it runs here; notice when it is paused or killed."""
        something = asyncio.Event()

        def on_hint(hint: Hint) -> None:
            if hint.elsewhere or self.flow_id in hint.inbox or self.flow_id in hint.settled:
                something.set()

        unsubscribe = self._log.subscribe(on_hint)
        cursor = 0
        try:
            while True:
                something.clear()
                try:
                    cursor, messages = await self._log.arrivals(incarnation.id, cursor)
                    lost = await self._log.lost(incarnation.id, [(self.flow_id, run.record.epoch)])
                except LogClosed:
                    return
                except StoreError as error:
                    logger.warning("flow %s: could not fetch messages (%s)", self.flow_id, error)
                except Exception:  # a defect of the log's: the flow must hear what comes later
                    logger.exception("flow %s: could not fetch messages", self.flow_id)
                else:
                    run.receive([message for message in messages if message.flow_id == self.flow_id])
                    for _, status in lost:
                        run.taken_away(status)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await something.wait()
        finally:
            unsubscribe()

    async def _taken_away(self, call: FlowCall[R]) -> Outcome[R]:
        """The outcome that the flow has without us; raises `LeaseLost` when it has none yet."""
        record = None
        with contextlib.suppress(StoreError):
            record = await self._log.find(self.flow_id)
        if record is not None and record.status.is_terminal:
            return self._recorded(record, call)
        now = f" (it is {record.status} now)" if record is not None else ""
        raise LeaseLost(
            f"flow {self.flow_id!r} was taken over while it ran here{now}; this run wrote nothing more"
        )

    def _recorded(self, record: FlowRecord, call: FlowCall[R]) -> Outcome[R]:
        return self._outcome(record.status, record.output, record.reason, call)

    def _outcome(self, status: TaskStatus, output: str | None, reason: str, call: FlowCall[R]) -> Outcome[R]:
        if status is TaskStatus.COMPLETED:
            return Completed(call.flow.result_decoder.decode(output if output is not None else "null"))
        if status is TaskStatus.PARKED:
            raise FlowParked(self.flow_id, reason)
        if status.is_terminal:
            raise rebuild(output) if output is not None else FlowCancelled(self.flow_id, reason)
        waits = read_waits(reason)
        return Suspended(waits_sentence(waits), waits)


def _chosen(target: Any, entry: Callable[[Any], Coroutine[Any, Any, Any]]) -> FlowCall[Any]:
    """The flow call that `entry` makes, found by calling it with a stand-in that only notes what was asked for."""
    if isinstance(target, FlowCall):
        raise UsageError("the flow is bound to its arguments already; call run() without an entry")
    if not getattr(type(target), MARK, False):
        raise UsageError(
            f"{type(target).__name__} is not a @flow_type class; decorate it, or bind a flow function"
        )
    chosen = entry(_Chooser(target))
    if not isinstance(chosen, FlowCall):
        names = ", ".join(flow.name for flow in flows_of(type(target)))
        raise UsageError(
            f"the entry must call one of the object's flows ({names}), such as `lambda f: f.process()`"
        )
    return chosen


def _leave(run: FlowRun) -> None:
    """Suspend a flow that can only wait; while a step body waits, after its other branches have had time to begin."""
    if run.work.bodies:
        run.host.loop.call_later(BODY_GRACE_SECONDS, _leave_if_idle, run, run.work.idle_since)
    else:
        _leave_if_idle(run, run.work.idle_since)


def _leave_if_idle(run: FlowRun, since: float | None) -> None:
    due = run.wake_at
    if run.work.idle_since != since or (due is not None and due <= run.host.now()):
        return  # it goes on by itself
    if (
        not run.suspend() and run.work.idle_since is not None and not run.ended
    ):  # a body computes beside its wait: nothing tells when it is done
        run.host.loop.call_later(COMPUTING_LOOK_SECONDS, _leave_if_idle, run, run.work.idle_since)


class _Chooser:
    """Stands for the object while its entry is found: a flow method gives its call, the rest is the object's."""

    def __init__(self, target: Any) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        return value.bind if isinstance(value, BoundFlow) else value
