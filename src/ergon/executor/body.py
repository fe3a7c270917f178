"""Run one step: verify > retry > timeout > call, and be the context its body sees.

What a crash leaves behind, await by await: before the body ends, nothing (the step is open and runs again); with
`at_most_once`, the STEP_STARTED event that keeps it from running again; after a failed attempt, a STEP_RETRIED event
with the time of the next; after a durable wait inside the body, a STEP_WAITED event that answers it at once.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from ergon.core.codec import decoder_for, encode, recode
from ergon.core.failure import describe, rebuild
from ergon.core.history import Event, EventKind
from ergon.core.retry import next_delay
from ergon.errors import StepCancelled, StepInterrupted, StepTimeout, UsageError
from ergon.executor.families import child_outcome
from ergon.executor.inbox import StepWait
from ergon.flows.context import step_context
from ergon.flows.steps import DID_NOT_HAPPEN, Happened, Step, StepRequest
from ergon.replay.operations import Operation

if TYPE_CHECKING:
    from ergon.executor.run import FlowRun


class StepBody:
    """One open step: its attempts, one after the other."""

    __slots__ = (
        "_counts",
        "_earlier",
        "_request",
        "_waited",
        "_work",
        "attempt",
        "dropped",
        "op",
        "run",
        "task",
        "waiting",
    )

    def __init__(self, run: FlowRun, op: Operation, earlier: list[Event]) -> None:
        request: StepRequest = op.request
        self.run = run
        self.op = op
        self.attempt = 1
        self.dropped = False
        self.waiting: dict[str, Any] | None = None
        """What the body waits for durably, so that the flow may leave memory; None while it computes."""
        self._request = request
        self.task: asyncio.Task[None] | None = None
        self._work: Callable[[], Coroutine[Any, Any, None]] = self._attempt
        self._earlier = earlier
        self._waited: dict[str, Event] | None = None
        self._counts: dict[str, int] | None = None

    def start(self) -> None:
        """Begin the next attempt; what earlier processes recorded about this step counts."""
        if self._earlier or self._request.step.options.at_most_once:
            self._work = self._resume
        self.run.host.runner.start(self)

    def work(self) -> Coroutine[Any, Any, None]:
        """What the runner runs next."""
        return self._work()

    def drop(self) -> None:
        """Nobody waits for the result any more: cancel the body, write nothing."""
        if not self.dropped:
            self.dropped = True
            self.run.host.runner.cancel(self)

    # -- the ladder ------------------------------------------------------------------------------------

    async def _resume(self) -> None:
        """Go on after what is recorded: an at-most-once start, a back-off, answered waits."""
        options = self._request.step.options
        started = False
        failure: str | None = None
        for event in self._earlier:
            if event.kind == EventKind.STEP_WAITED:
                if self._waited is None:
                    self._waited = {}
                self._waited[event.name] = event
            elif event.kind == EventKind.STEP_RETRIED:
                self.attempt, started = event.attempt + 1, False
                await self._back_off(event.at)
            elif event.kind == EventKind.STEP_STARTED:
                self.attempt, started = event.attempt, True
            elif event.kind == EventKind.STEP_FAILED:  # in an earlier attempt of the flow
                failure = event.payload
        if started and failure is not None and options.verify is None:
            self.run.step_failed(self, rebuild(failure))
            return
        if started and not await self._did_not_happen():
            return
        if options.at_most_once:
            await self._record_start()
        await self._attempt()

    async def _attempt(self) -> None:
        """Run the body once, and record how it ended."""
        run, step = self.run, self._request.step
        step_context.set(self)
        try:
            host = run.host
            if not host.may_start():
                await host.wait_may_start()
            if step.options.timeout is not None:
                result = await self._call_in_time(step, step.options.timeout)
            elif step.is_async:
                result = await step.function(*self._request.args, **self._request.kwargs)
            else:
                result = await self._call_elsewhere(step)
            text, copy = recode(result, step.decoder)
        except asyncio.CancelledError:
            if self.dropped or run.ended:
                return
            error: Exception = StepCancelled(
                f"step `{step.name}` raised CancelledError, though nobody cancelled it"
            )
        except Exception as caught:  # noqa: BLE001 - step boundary: user code may raise anything
            error = caught
        else:
            if not self.dropped:
                run.step_completed(self, text, copy)
            return
        if not self.dropped:
            self._failed(error)

    async def _call_in_time(self, step: Step[Any, Any], seconds: float) -> Any:
        try:
            async with asyncio.timeout(seconds) as limit:
                if step.is_async:
                    return await step.function(*self._request.args, **self._request.kwargs)
                return await self._call_elsewhere(step)
        except TimeoutError as error:
            if limit.expired():
                raise StepTimeout(
                    f"step `{step.name}`: one attempt took longer than {seconds:g} s"
                ) from error
            raise

    async def _call_elsewhere(self, step: Step[Any, Any]) -> Any:
        """A plain function: on a thread, or in another process."""
        request, host = self._request, self.run.host
        if step.options.process:
            call = (step.function.__module__, step.function.__qualname__, request.args, request.kwargs)
            return await host.loop.run_in_executor(host.processes(), call_by_name, *call)
        context = copy_context()
        return await host.loop.run_in_executor(
            host.threads(), lambda: context.run(step.function, *request.args, **request.kwargs)
        )

    def _failed(self, error: Exception) -> None:
        policy = self._request.step.options.retry
        delay = next_delay(policy, self.attempt, error, self.run.host.rng)
        if delay is None:
            self.run.step_failed(self, error)
            return
        at = self.run.host.log.now() + delay
        self.run.step_event(
            EventKind.STEP_RETRIED, self, payload=describe(error), at=at, after=lambda: self._again(at)
        )

    def _again(self, at: float) -> None:
        """The failed attempt is durable: wait, then try once more."""
        if self.dropped or self.run.ended:
            return
        self.attempt += 1
        self._counts = None
        self._earlier = []
        self.task = None
        self._work = lambda: self._after_back_off(at)
        self.run.host.runner.start(self)

    async def _after_back_off(self, at: float) -> None:
        await self._back_off(at)
        if self._request.step.options.at_most_once:
            await self._record_start()
        await self._attempt()

    async def _back_off(self, until: float) -> None:
        self._wait("retry", self._request.step.name, due=until)
        await self.run.host.sleep_until(until)
        self._done_waiting()

    # -- at most once ----------------------------------------------------------------------------------

    async def _record_start(self) -> None:
        durable = self.run.host.loop.create_future()
        self.run.step_event(EventKind.STEP_STARTED, self, after=lambda: _resolve(durable))
        await durable

    async def _did_not_happen(self) -> bool:
        """An attempt was interrupted. True: run it again. False: its outcome has been recorded."""
        options, step = self._request.step.options, self._request.step
        if options.verify is None:
            self.run.step_failed(
                self,
                StepInterrupted(
                    f"step `{step.name}` was interrupted after it started; whether its effect happened is unknown, and "
                    "at_most_once forbids a second try"
                ),
            )
            return False
        try:
            answer = options.verify(*self._request.args, **self._request.kwargs)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is DID_NOT_HAPPEN:
                self.attempt += 1
                return True
            if not isinstance(answer, Happened):
                raise UsageError(
                    f"verify of step `{step.name}` returned {type(answer).__name__}; return Happened(result=...) or "
                    "DID_NOT_HAPPEN"
                )
            text, copy = recode(answer.result, step.decoder)
        except Exception as error:  # noqa: BLE001 - step boundary: user code may raise anything
            self.run.step_failed(self, error)
            return False
        self.run.step_completed(self, text, copy)
        return False

    # -- the context the body sees (`ergon.flows.context.StepContext`) ------------------------------------

    @property
    def flow_id(self) -> str:
        """The flow this step belongs to."""
        return self.run.flow_id

    @property
    def idempotency_key(self) -> str:
        """Flow id and operation id: every attempt of this call has it, no other call does."""
        return f"{self.run.flow_id}/{self.op.id}"

    def now(self) -> float:
        """The log's clock."""
        return self.run.host.log.now()

    async def wait_timer(self, seconds: float, name: str) -> None:
        """Wait; the due time is recorded once, so that running the body again does not wait from the start."""
        key = self._key("timer", name)
        recorded = self._answered(key)
        if recorded is None:
            durable = self.run.host.loop.create_future()
            due = self.run.host.log.now() + seconds
            self.run.step_event(
                EventKind.STEP_WAITED, self, name=key, payload=encode(due), after=lambda: _resolve(durable)
            )
            await durable
        else:
            due = decoder_for(float).decode(recorded.payload or "0")
        self._wait("timer", name or self._request.step.name, due=due)
        await self.run.host.sleep_until(due)
        self._done_waiting()

    async def wait_signal(self, name: str) -> str:
        """The next value of a signal; recorded together with its consumption."""
        key = self._key("signal", name)
        recorded = self._answered(key)
        if recorded is None:
            arrived = self.run.host.loop.create_future()
            self._wait("signal", name)
            self.run.want_signal(name, StepWait(self, key, arrived))
            try:
                recorded = await arrived
            finally:
                self._done_waiting()
                self.run.inbox.unwant(arrived)
        assert recorded.payload is not None
        return recorded.payload

    def start_child(self, request: Any) -> Callable[[], Coroutine[Any, Any, Any]]:
        """Start a child flow whose outcome is recorded under this step."""
        key = self._key("child", request.call.flow.name)
        recorded = self._answered(key)
        arrived: asyncio.Future[Event] = self.run.host.loop.create_future()
        if recorded is not None:
            arrived.set_result(recorded)
        else:
            self.run.start_child_of_step(request, StepWait(self, key, arrived))

        async def wait() -> Any:
            self._wait("child", request.call.flow.name)
            try:
                event = await asyncio.shield(arrived)
            finally:
                self._done_waiting()
            return child_outcome(request, event.payload or "null")

        return wait

    def _key(self, kind: str, name: str) -> str:
        """Names the n-th wait of this kind and name, which stays the same when the body runs again."""
        if self._counts is None:
            self._counts = {}
        base = f"{kind}:{name}"
        self._counts[base] = number = self._counts.get(base, 0) + 1
        return f"{base}#{number}"

    def _answered(self, key: str) -> Event | None:
        return self._waited.get(key) if self._waited is not None else None

    def describe(self) -> dict[str, Any]:
        """What the body does or waits for, for whoever asks why the flow does not move."""
        if self.waiting is not None:
            return self.waiting
        op = self.op
        return {
            "kind": "step",
            "name": op.name,
            "op": op.id,
            "since": op.asked_at,
            "attempt": self.attempt,
            "source": op.source,
        }

    def remember(self, event: Event) -> None:
        """A durable wait of this body was answered; a further attempt finds it."""
        if self._waited is None:
            self._waited = {}
        self._waited[event.name] = event

    def _wait(self, kind: str, name: str, due: float | None = None) -> None:
        self.waiting = {"kind": kind, "name": name, "op": self.op.id, "step": self._request.step.name}
        self.waiting["since"] = self.run.host.log.now()
        if due is not None:
            self.waiting["due"] = due
        self.run.may_be_idle()

    def _done_waiting(self) -> None:
        self.waiting = None
        self.run.not_idle()


def kept_for_next_attempt(events: list[Event]) -> list[Event]:
    """What counts when the flow is tried again: answered waits and at-most-once starts, not the failed attempts."""
    if not any(event.kind == EventKind.STEP_STARTED for event in events):
        return [event for event in events if event.kind == EventKind.STEP_WAITED]
    return [event for event in events if event.kind != EventKind.STEP_RETRIED]


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def call_by_name(module: str, qualname: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """In a pool process: find the step's own function and call it. The name comes from this program, not from data."""
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    function = found.function if isinstance(found, Step) else found
    return function(*args, **kwargs)


__all__ = ["StepBody", "call_by_name"]
