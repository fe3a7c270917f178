"""Run one step: verify > retry > timeout > call.

What a crash leaves behind, await by await: before the body ends, nothing (the step is open and runs again); with
`at_most_once`, the STEP_STARTED event that keeps it from running again; after a failed attempt, a STEP_RETRIED event
with the time of the next; while `verify` is asked, nothing more. The call itself is in `calls.py`, `verify` in
`verifying.py`, what the body waits for durably in `body_waits.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from ergon.core.codec import recode
from ergon.core.failure import describe, rebuild
from ergon.core.history import Event, EventKind
from ergon.core.retry import next_delay
from ergon.errors import (
    EncodingError,
    StepCancelled,
    StepFailed,
    StepInterrupted,
    StepMutatedArguments,
)
from ergon.executor.body_waits import BodyWaits, resolve
from ergon.executor.calls import call, call_inside_step
from ergon.executor.failure_lines import failure_line
from ergon.executor.idleness import Look, has_limits, works_beside
from ergon.executor.mutations import FIXED, Watched, watch
from ergon.executor.plainly import step_exited
from ergon.executor.verifying import verdict
from ergon.flows.context import step_context
from ergon.flows.step_calls import StepCall
from ergon.flows.steps import Happened, Step
from ergon.replay.exits import ends_process
from ergon.replay.operations import Operation

if TYPE_CHECKING:
    from ergon.executor.host import Host
    from ergon.executor.work import Work

logger = logging.getLogger("ergon.executor")

_RECORDED: Final = object()
"""Result of an attempt whose outcome has been recorded already."""


class StepBody:
    """One open step: its attempts, one after the other."""

    # Set by `Work` one by one: a constructor in Python would cost more than all of them.
    work: Work
    op: Operation
    request: StepCall
    # Defaults of the class: most bodies never change them.
    attempt = 1
    dropped = False
    task: asyncio.Task[Any] | None = None
    waits: BodyWaits | None = None
    """What it waits for durably; None when it never has."""
    _limit: asyncio.Timeout | None = None
    """What ends the attempt when it takes longer than its step may."""
    _earlier: Sequence[Event] = ()
    _prepare: Callable[[], Coroutine[Any, Any, bool]] | None = None
    _watched: Watched | None = None
    _hurry: asyncio.Event | None = None

    def start(self, earlier: Sequence[Event]) -> None:
        """Begin the next attempt, after what earlier processes recorded about this step."""
        self._earlier = earlier
        if earlier or self.request.step.options.at_most_once:
            self._prepare = self._resume
        self.work.host.runner.start(self)

    def begin(self) -> Coroutine[Any, Any, Any]:
        """The attempt as a coroutine, not started; the runner gives its outcome to `returned` or `raised`."""
        step_context.set(self)
        request = self.request
        step = request.step
        step.decoder  # noqa: B018  # an annotation that cannot be read is told before the body has an effect
        args, kwargs = request.args, request.kwargs
        for value in args if not kwargs else (*args, *kwargs.values()):
            if type(value) not in FIXED:
                self._watched = watch(args, kwargs, self.work.turns)
                break
        if step.is_plain and self._prepare is None and self.work.host.may_start():
            return step.function(*args, **kwargs) if kwargs else step.function(*args)  # type: ignore[no-any-return]
        return self._attempt()

    def returned(self, result: Any) -> None:
        """The attempt returned: record it."""
        if self.dropped or result is _RECORDED:
            return
        try:
            if self._watched is not None and (changed := self._watched.changed(self.work.turns)) is not None:
                self._failed(_mutated(self.request.step.name, changed))
                return
            step = self.request.step
            try:
                text, copy = recode(result, step.decoder)
            except Exception as error:  # noqa: BLE001 - the user's type may raise anything when it is read back
                self._failed(_of_result(step.name, error))
            else:
                self.work.completed(self, text, copy)
        except Exception as defect:  # noqa: BLE001 - a defect of ours, or of a policy: the step must not stay open
            self.work.broken(defect)

    def raised(self, error: BaseException) -> None:
        """The attempt raised: try again, or record the failure."""
        try:
            self._raised(error)
        except Exception as defect:  # noqa: BLE001 - as above
            self.work.broken(defect)

    def _raised(self, error: BaseException) -> None:
        if self.dropped or self.work.closed:
            return
        if isinstance(error, asyncio.CancelledError):
            name = self.request.step.name
            error = StepCancelled(f"step `{name}` raised CancelledError, though nobody cancelled it")
        if ends_process(error):
            self.work.interrupt()
            raise error  # the step stays open
        if isinstance(error, SystemExit | KeyboardInterrupt):
            error = step_exited(error)
        if not isinstance(error, Exception):
            error = StepFailed(type(error).__qualname__, str(error))
        self._failed(error)

    def cancelled(self, error: asyncio.CancelledError) -> None:
        """Its task was cancelled by others: with all tasks of a program that ends, or alone by its own code."""
        if self.work.host.draining or self.work.host.program_ends:
            self.given_up()
        else:
            self.raised(error)

    def given_up(self) -> None:
        """It will not begin here, as the loop is ending: the flow goes on elsewhere."""
        if not self.dropped:
            self.work.interrupt()

    def drop(self) -> None:
        """Nobody waits for the result any more: cancel the body, write nothing."""
        if not self.dropped:
            self.dropped = True
            self.work.host.runner.cancel(self)

    # -- the ladder ------------------------------------------------------------------------------------

    async def _resume(self) -> bool:
        """Go on after what is recorded: an at-most-once start, a back-off, answered waits. False: it is over."""
        options = self.request.step.options
        started = False
        failure: str | None = None
        for event in self._earlier:
            if event.kind == EventKind.STEP_WAITED:
                self._durable_waits().remember(event)
            elif event.kind == EventKind.STEP_RETRIED:
                self.attempt, started = event.attempt + 1, False
                self._durable_waits().failed(event.attempt)
                await self._back_off(event.at)
            elif event.kind == EventKind.STEP_STARTED:
                self.attempt, started = event.attempt, True
            elif event.kind == EventKind.STEP_FAILED:  # in an earlier attempt of the flow
                failure = event.payload
        if started and failure is not None and options.verify is None:
            self.work.failed(self, rebuild(failure))
            return False
        if started and not await self._did_not_happen():
            return False
        if options.at_most_once:
            await self._record_start()
        return True

    async def _attempt(self) -> Any:
        """An attempt that takes more than calling an `async def`."""
        host = self.work.host
        if self._prepare is not None:
            if not await self._prepare():
                return _RECORDED
            if self.waits is not None:
                self.waits.begin(self.attempt)
        if not host.may_start():
            await host.wait_may_start()
        if self.request.step.options.timeout is None:
            return await call(self.request, host)
        return await self._call_in_time(host, self.request.step.options.timeout)

    async def _call_in_time(self, host: Host, seconds: float) -> Any:
        is_async = self.request.step.is_async
        ends_at = self.waits.ends_at(self.attempt) if self.waits is not None else None
        left = seconds if ends_at is None else min(ends_at - host.now(), seconds)
        self._limit = asyncio.timeout(left if is_async else None)
        try:
            return await call(self.request, host, self._limit)
        finally:
            self._limit = None

    def _failed(self, error: Exception) -> None:
        policy = self.request.step.options.retry
        delay = next_delay(policy, self.attempt, error, self.work.host.rng)
        if delay is None:
            self.work.failed(self, error)
            return
        at, failure = self.work.host.now() + delay, describe(error)

        def noted() -> None:
            if logger.isEnabledFor(logging.INFO):
                logger.info(
                    "flow %s: attempt %d of step %s failed, the next follows in %.3g s: %s",
                    self.work.flow_id,
                    self.attempt,
                    self.op.name,
                    delay,
                    failure_line(failure),
                    extra={"flow_id": self.work.flow_id},
                )
            self._again(at)

        self.work.note(EventKind.STEP_RETRIED, self.op, self.attempt, payload=failure, at=at, after=noted)

    def _again(self, at: float) -> None:
        """The failed attempt is durable: wait, then try once more."""
        if self.dropped or self.work.closed:
            return
        if self.waits is not None:
            self.waits.failed(self.attempt)
        self.attempt += 1
        self._earlier = ()
        self.task = None
        self._prepare = lambda: self._after_back_off(at)
        self.work.host.runner.start(self)

    async def _after_back_off(self, at: float) -> bool:
        await self._back_off(at)
        if self.request.step.options.at_most_once:
            await self._record_start()
        return True

    async def _back_off(self, until: float) -> None:
        waits = self._durable_waits()
        wait = waits.open("retry", self.op.name, due=until)
        self._hurry = hurry = asyncio.Event()
        await self.work.host.sleep_until(until, hurry)
        self._hurry = None
        waits.close(wait)

    def retry_now(self) -> None:
        """When it backs off: do not wait any longer."""
        if self._hurry is not None:
            self._hurry.set()

    # -- at most once ----------------------------------------------------------------------------------

    async def _record_start(self) -> None:
        durable = self.work.host.loop.create_future()
        self.work.note(EventKind.STEP_STARTED, self.op, self.attempt, after=lambda: resolve(durable))
        await durable
        if self.request.step.options.verify is not None:  # else nobody starts it after this
            await self.work.surely_ours()

    async def _did_not_happen(self) -> bool:
        """An attempt was interrupted. True: run it again. False: its outcome has been recorded."""
        options, step = self.request.step.options, self.request.step
        if options.verify is None:
            self.work.failed(
                self,
                StepInterrupted(
                    f"step `{step.name}` was interrupted after it started; whether its effect happened is unknown, and "
                    "at_most_once forbids a second try"
                ),
            )
            return False
        try:
            answer = await verdict(self.request, self.work.host, self._before_asking_again)
        except StepInterrupted as error:
            self.work.failed(self, error)
            return False
        if not isinstance(answer, Happened):
            self.attempt += 1
            return True
        if self.waits is not None:
            self.waits.surely_heard()
        try:
            text, copy = recode(answer.result, step.decoder)
        except Exception as error:  # noqa: BLE001 - step boundary: the user's type may raise anything
            self.work.failed(self, _of_result(step.name, error))
        else:
            self.work.completed(self, text, copy)
        return False

    async def _before_asking_again(self, failure: str, seconds: float) -> None:
        """`verify` failed. Not a durable wait: were the flow to leave memory, its tries would count anew each time."""
        logger.info(
            "flow %s: verify of step %s failed, it is asked again in %.3g s: %s",
            self.work.flow_id,
            self.op.name,
            seconds,
            failure_line(failure),
            extra={"flow_id": self.work.flow_id},
        )
        self._hurry = hurry = asyncio.Event()
        await self.work.host.sleep_until(self.now() + seconds, hurry)
        self._hurry = None
        if self.waits is not None:
            self.waits.begin(self.attempt)

    # -- the context the body sees (`ergon.flows.context.StepContext`) ------------------------------------

    @property
    def flow_id(self) -> str:
        """The flow this step belongs to."""
        return self.work.flow_id

    @property
    def idempotency_key(self) -> str:
        """Flow id and operation id: every attempt of this call has it, no other call does.

        In a flow that is tried again the operation is the one that first made this call.
        """
        return f"{self.work.flow_id}/{self.op.call_id}"

    def now(self) -> float:
        """The log's clock."""
        return self.work.host.now()

    def wait_timer(self, seconds: float, name: str) -> Coroutine[Any, Any, None]:
        """A durable timer, recorded under the step."""
        return self._durable_waits().wait_timer(seconds, name)

    def wait_signal(self, name: str) -> Coroutine[Any, Any, str]:
        """The next value of a signal as JSON, recorded under the step."""
        return self._durable_waits().wait_signal(name)

    def start_child(self, request: Any) -> tuple[str, Callable[[], Coroutine[Any, Any, Any]]]:
        """Start a child flow, recorded under the step; its flow id, and how to wait for its outcome."""
        return self._durable_waits().start_child(request)

    def call_plain(
        self, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Call the plain function of another step, as part of this one."""
        return call_inside_step(step, args, kwargs, self.work.host)

    def computes(self, look: Look) -> bool:
        """True when it does more than wait durably. For the moments when it matters."""
        waits = self.waits
        return waits is None or not waits.idle or works_beside(self, self.task, waits.tasks(), look)

    def has_limits(self, look: Look) -> bool:
        """True when a time limit of its own code, which nobody else knows of, runs while it waits."""
        return has_limits(self, self.task, look, but=self._limit)

    @property
    def due(self) -> float | None:
        """When it goes on by itself, by the log's clock; None when it does not, or has never waited durably."""
        waits, ends_at = self.waits, self._ends_at()
        if waits is None or ends_at is None:
            return waits.due if waits is not None else None
        return ends_at if waits.due is None else min(waits.due, ends_at)

    def leave_notes(self) -> None:
        """It is let go: note which signals it has had and, if it waits durably, when its attempt ends at the latest."""
        waits, ends_at = self.waits, self._ends_at()
        if waits is not None:
            waits.note_heard()
            if waits.idle and ends_at is not None:
                waits.note_end(self.attempt, ends_at)

    def end_waits(self) -> None:
        """The step is over, or the flow waits for it no more: what is on its way to it, or was, goes back."""
        if self.waits is None and self._earlier:  # it has not begun to go on after this
            waits = self._durable_waits()
            for event in self._earlier:
                if event.kind == EventKind.STEP_WAITED:
                    waits.remember(event)
                elif event.kind == EventKind.STEP_RETRIED:
                    waits.failed(event.attempt)
        if self.waits is not None:
            self.waits.end()

    def _ends_at(self) -> float | None:
        when = self._limit.when() if self._limit is not None else None
        host = self.work.host
        return host.now() + when - host.loop.time() if when is not None else None

    def _durable_waits(self) -> BodyWaits:
        if self.waits is None:
            self.waits = BodyWaits(self.work, self.op, self.attempt)
            if self.work.bodies.get(self.op.id) is not self:
                self.waits.end()  # a task waits that it has left behind
        return self.waits

    def describe(self) -> Sequence[dict[str, Any]]:
        """What the body does or waits for, for whoever asks why the flow does not move."""
        waits = self.waits.describe() if self.waits is not None else ()
        if waits:
            return waits
        op = self.op
        return (
            {
                "kind": "step",
                "name": op.name,
                "op": op.id,
                "since": op.asked_at,
                "attempt": self.attempt,
                "source": op.source,
            },
        )


def _of_result(name: str, error: Exception) -> Exception:
    """An error of storing a step's result names the step; any other is its own."""
    if not isinstance(error, EncodingError):
        return error
    return EncodingError(f"the result of step `{name}` cannot be stored: {error}", path=error.path)


def _mutated(name: str, changed: Any) -> StepMutatedArguments:
    return StepMutatedArguments(
        f"step `{name}` changed the {type(changed).__name__} that its flow handed to it. A replay does not run the "
        "body, so the flow would not see that change again: return the new value and assign it in the flow"
    )
