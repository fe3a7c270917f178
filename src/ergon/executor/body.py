"""Run one step: verify > retry > timeout > call, and be the context its body sees.

What a crash leaves behind, await by await: before the body ends, nothing (the step is open and runs again); with
`at_most_once`, the STEP_STARTED event that keeps it from running again; after a failed attempt, a STEP_RETRIED event
with the time of the next; after a durable wait inside the body, a STEP_WAITED event that answers it at once.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ergon.core.codec import decoder_for, encode, recode
from ergon.core.failure import describe, rebuild
from ergon.core.history import Event, EventKind
from ergon.core.retry import next_delay
from ergon.errors import (
    StepCancelled,
    StepFailed,
    StepInterrupted,
    StepMutatedArguments,
    StepTimeout,
    UsageError,
)
from ergon.executor.families import child_outcome
from ergon.executor.idleness import works_beside
from ergon.executor.inbox import StepWait
from ergon.executor.mutations import Watched, watch
from ergon.flows.children import child_id
from ergon.flows.context import step_context
from ergon.flows.steps import DID_NOT_HAPPEN, Happened, Step, StepCall
from ergon.replay.operations import Operation

if TYPE_CHECKING:
    from ergon.executor.run import FlowRun

_RECORDED: Final = object()
"""Result of an attempt whose outcome has been recorded already."""


class StepBody:
    """One open step: its attempts, one after the other."""

    # Defaults of the class: most bodies never change them, and are made once per step.
    attempt = 1
    dropped = False
    task: asyncio.Task[Any] | None = None
    idle = False
    """True while the body waits durably; it may compute in another branch, which `computes` looks into."""
    _waits: Sequence[_Wait] = ()
    _answered: frozenset[asyncio.Future[Event]] = frozenset()
    _earlier: Sequence[Event] = ()
    _prepare: Callable[[], Coroutine[Any, Any, bool]] | None = None
    _waited: dict[str, Event] | None = None
    _watched: Watched | None = None
    _counts: dict[str, int] | None = None
    _kept: dict[str, Event] | None = None
    _children: dict[str, str] | None = None
    _hurry: asyncio.Event | None = None

    def __init__(self, run: FlowRun, op: Operation, earlier: list[Event] | None) -> None:
        self.run = run
        self.op = op
        self._request: StepCall = op.request
        if earlier:
            self._earlier = earlier

    @property
    def children(self) -> dict[str, str]:
        """Child flows of this body that are to follow it when it is cancelled: flow ids by the key of their wait."""
        if self._children is None:
            self._children = {}
        return self._children

    def start(self) -> None:
        """Begin the next attempt; what earlier processes recorded about this step counts."""
        if self._earlier or self._request.step.options.at_most_once:
            self._prepare = self._resume
        self.run.host.runner.start(self)

    def begin(self) -> Coroutine[Any, Any, Any]:
        """The attempt as a coroutine, not started; the runner gives its outcome to `returned` or `raised`."""
        step_context.set(self)
        request = self._request
        step = request.step
        watched = watch(request.args, request.kwargs, self.run.turns)
        if watched is not None:
            self._watched = watched
        if step.is_plain and self._prepare is None and self.run.host.may_start():
            return step.function(*request.args, **request.kwargs)  # type: ignore[no-any-return]
        return self._attempt()

    def returned(self, result: Any) -> None:
        """The attempt returned: record it."""
        if self.dropped or result is _RECORDED:
            return
        if self._watched is not None and (changed := self._watched.changed(self.run.turns)) is not None:
            self._failed(_mutated(self._request.step.name, changed))
            return
        step = self._request.step
        try:
            text, copy = recode(result, step.decoder)
        except Exception as error:  # noqa: BLE001 - the user's type may raise anything when it is read back
            self._failed(error)
        else:
            self.run.step_completed(self, text, copy)

    def raised(self, error: BaseException) -> None:
        """The attempt raised: try again, or record the failure."""
        if self.dropped or self.run.ended:
            return
        if isinstance(error, asyncio.CancelledError):
            name = self._request.step.name
            error = StepCancelled(f"step `{name}` raised CancelledError, though nobody cancelled it")
        if isinstance(error, SystemExit | KeyboardInterrupt):
            raise error  # the process is asked to end; the step stays open
        if not isinstance(error, Exception):
            error = StepFailed(type(error).__qualname__, str(error))
        self._failed(error)

    def drop(self) -> None:
        """Nobody waits for the result any more: cancel the body, write nothing."""
        if not self.dropped:
            self.dropped = True
            self.run.host.runner.cancel(self)

    # -- the ladder ------------------------------------------------------------------------------------

    async def _resume(self) -> bool:
        """Go on after what is recorded: an at-most-once start, a back-off, answered waits. False: it is over."""
        options = self._request.step.options
        started = False
        failure: str | None = None
        for event in self._earlier:
            if event.kind == EventKind.STEP_WAITED:
                self.remember(event)
            elif event.kind == EventKind.STEP_RETRIED:
                self.attempt, started = event.attempt + 1, False
                await self._back_off(event.at)
            elif event.kind == EventKind.STEP_STARTED:
                self.attempt, started = event.attempt, True
            elif event.kind == EventKind.STEP_FAILED:  # in an earlier attempt of the flow
                failure = event.payload
        if started and failure is not None and options.verify is None:
            self.run.step_failed(self, rebuild(failure))
            return False
        if started and not await self._did_not_happen():
            return False
        if options.at_most_once:
            await self._record_start()
        return True

    async def _attempt(self) -> Any:
        """An attempt that takes more than calling an `async def`."""
        step, host = self._request.step, self.run.host
        if self._prepare is not None and not await self._prepare():
            return _RECORDED
        if not host.may_start():
            await host.wait_may_start()
        if step.options.timeout is not None:
            return await self._call_in_time(step, step.options.timeout)
        if step.is_async:
            return await step.function(*self._request.args, **self._request.kwargs)
        return await self._call_elsewhere(step)

    async def _call_in_time(self, step: Step[Any, Any], seconds: float) -> Any:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
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
            host.threads(), lambda: context.run(_call_on_thread, step.function, request.args, request.kwargs)
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
        self._earlier = ()
        self.task = None
        self._prepare = lambda: self._after_back_off(at)
        self.run.host.runner.start(self)

    async def _after_back_off(self, at: float) -> bool:
        await self._back_off(at)
        if self._request.step.options.at_most_once:
            await self._record_start()
        return True

    async def _back_off(self, until: float) -> None:
        wait = self._wait("retry", self._request.step.name, due=until)
        self._hurry = hurry = asyncio.Event()
        await self.run.host.sleep_until(until, hurry)
        self._hurry = None
        self._done_waiting(wait)

    def retry_now(self) -> None:
        """When it backs off: do not wait any longer."""
        if self._hurry is not None:
            self._hurry.set()

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
        recorded = self._recorded(key)
        if recorded is None:
            durable = self.run.host.loop.create_future()
            due = self.run.host.log.now() + seconds
            payload = encode(due)

            def landed() -> None:
                self.remember(
                    Event(0, EventKind.STEP_WAITED, self.op.id, key, "", payload, 0.0, "", self.attempt)
                )
                _resolve(durable)

            self.run.step_event(EventKind.STEP_WAITED, self, name=key, payload=payload, after=landed)
            await durable
        else:
            due = decoder_for(float).decode(recorded.payload or "0")
        wait = self._wait("timer", name or self._request.step.name, due=due)
        try:
            await self.run.host.sleep_until(due)
        finally:
            self._done_waiting(wait)

    async def wait_signal(self, name: str) -> str:
        """The next value of a signal; recorded together with its consumption."""
        key = self._key("signal", name)
        recorded = self._recorded(key) or self._take_kept(f"signal:{name}")
        if recorded is None:
            arrived = self.run.host.loop.create_future()
            # A signal that came before is taken right here: only without one may the flow leave memory.
            self.run.want_signal(name, StepWait(self, key, arrived))
            wait = self._wait("signal", name, until=arrived)
            try:
                recorded = await arrived
            finally:
                self._done_waiting(wait)
                self.run.inbox.unwant(arrived)
        assert recorded.payload is not None
        return recorded.payload

    def start_child(self, request: Any) -> tuple[str, Callable[[], Coroutine[Any, Any, Any]]]:
        """Start a child flow whose outcome is recorded under this step; its id, and how to wait for it."""
        key = self._key("child", request.call.flow.name)
        recorded = self._recorded(key)
        arrived: asyncio.Future[Event] = self.run.host.loop.create_future()
        operation = f"{self.op.id}/{key}"
        flow_id = request.id or child_id(self.run.flow_id, operation)
        if recorded is not None:
            arrived.set_result(recorded)
        else:
            if not request.detached:
                self.children[key] = flow_id
            request = request._replace(flow_id=flow_id)
            self.run.start_child_of_step(request, operation, StepWait(self, key, arrived))

        async def wait() -> Any:
            waiting = self._wait("child", request.call.flow.name, until=arrived)
            try:
                event = await asyncio.shield(arrived)
            finally:
                self._done_waiting(waiting)
            return child_outcome(request, event.payload or "null")

        return flow_id, wait

    def keep(self, key: str, event: Event) -> None:
        """An answer came when its wait was over: it belongs to the next wait of the same kind and name."""
        if self._kept is None:
            self._kept = {}
        self._kept[key] = event

    def _take_kept(self, kind_and_name: str) -> Event | None:
        for key in self._kept or ():
            if key.rpartition("#")[0] == kind_and_name:
                assert self._kept is not None
                return self._kept.pop(key)
        return None

    def _key(self, kind: str, name: str) -> str:
        """Names the n-th wait of this kind and name, which stays the same when the body runs again."""
        if self._counts is None:
            self._counts = {}
        base = f"{kind}:{name}"
        self._counts[base] = number = self._counts.get(base, 0) + 1
        return f"{base}#{number}"

    def _recorded(self, key: str) -> Event | None:
        return self._waited.get(key) if self._waited is not None else None

    def describe(self) -> Sequence[dict[str, Any]]:
        """What the body does or waits for, for whoever asks why the flow does not move."""
        if self._waits:
            return [wait.told for wait in self._waits]
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

    def remember(self, event: Event) -> None:
        """A durable wait of this body was answered; a further attempt finds it."""
        self.children.pop(event.name, None)
        if self._waited is None:
            self._waited = {}
        self._waited[event.name] = event

    def _wait(
        self, kind: str, name: str, *, due: float | None = None, until: asyncio.Future[Event] | None = None
    ) -> _Wait:
        told: dict[str, Any] = {"kind": kind, "name": name, "op": self.op.id, "step": self._request.step.name}
        told["since"] = self.run.host.log.now()
        if due is not None:
            told["due"] = due
        wait = _Wait(told, until, asyncio.current_task())
        if until is None or not until.done():
            self._waits = [*self._waits, wait]
            self._judge()
            self.run.may_be_idle()
        return wait

    def answered(self, until: asyncio.Future[Event]) -> None:
        """A wait has its answer: the body is about to go on, though its task has not run yet."""
        if any(wait.until is until for wait in self._waits):
            self._answered |= {until}
            self._judge()

    def _done_waiting(self, wait: _Wait) -> None:
        self._waits = [each for each in self._waits if each is not wait]
        if wait.until is not None:
            self._answered -= {wait.until}
        self._judge()
        if self.idle:  # another branch of the body still waits: look again when this one has had its turn
            self.run.host.loop.call_soon(self.run.may_be_idle)

    def _judge(self) -> None:
        self.idle = bool(self._waits) and not self._answered
        self.run.not_idle()

    def computes(self) -> bool:
        """True when it does more than wait durably. Takes a look at every task: for the moments when it matters."""
        return not self.idle or works_beside(self, self.task, [wait.task for wait in self._waits])

    @property
    def due(self) -> float | None:
        """When the first of its waits is over by itself, by the log's clock."""
        return min((wait.told["due"] for wait in self._waits if "due" in wait.told), default=None)


class _Wait(NamedTuple):
    """A durable wait of a body."""

    told: dict[str, Any]
    """For whoever asks why the flow does not move."""
    until: asyncio.Future[Event] | None
    task: asyncio.Task[Any] | None
    """Which waits."""


def _mutated(name: str, changed: Any) -> StepMutatedArguments:
    return StepMutatedArguments(
        f"step `{name}` changed the {type(changed).__name__} that its flow handed to it. A replay does not run the "
        "body, so the flow would not see that change again: return the new value and assign it in the flow"
    )


def _call_on_thread(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:  # no future can carry it; a coroutine turns it into the same
        raise RuntimeError("a step raised StopIteration") from error


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
