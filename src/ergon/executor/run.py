"""One flow in memory, from its claim until it is let go.

    revive: replay the history, learn what is still open
    advance: start what the flow asked for, take in what arrived, commit what has happened
    landed: what is durable is delivered to the flow, which asks for more
    settle: it ended, or can only wait; let it go

A flow has one commit in flight at most. What happens meanwhile waits as facts and shares the next one. The flow
learns a fact only when it is durable, so a crash at any await leaves a history that leads to the same place: facts
not yet durable are forgotten with the process, and what led to them (a step, a timer, a message) is still open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ergon.core.codec import decoder_for, encode
from ergon.core.commit import ClaimedFlow, Commit, Lease, Message, MessageKind, NewFlow, Received, Settled
from ergon.core.failure import describe, rebuild
from ergon.core.history import DELIVERED, Event, EventKind
from ergon.core.status import TaskStatus
from ergon.errors import DecodingError, ErgonError, FlowIdConflict, LeaseLost, LogBusy, LogFull
from ergon.executor.body import StepBody
from ergon.executor.facts import NOT_DECODED, Fact
from ergon.executor.families import child_outcome, new_child, outcome_of_message
from ergon.executor.host import Host
from ergon.executor.settling import Retry, settle
from ergon.executor.waits import describe_waits
from ergon.replay.machine import SEEN_AGAIN, FlowMachine
from ergon.replay.operations import Operation, OperationKind

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ergon.flows.flow import Flow

logger = logging.getLogger("ergon.executor")

RESUBMIT_SECONDS: Final = 0.5
"""How long a commit that met a full disk or a busy log waits before it is tried again."""


class FlowRun:
    """A claimed flow that lives here."""

    def __init__(
        self,
        claimed: ClaimedFlow,
        flow: Flow[..., Any],
        host: Host,
        *,
        on_end: Callable[[FlowRun, Settled | None], None],
        on_idle: Callable[[FlowRun], None] | None = None,
        entry: Callable[[], Coroutine[Any, Any, Any]] | None = None,
    ) -> None:
        """`on_end` is called once: with how the flow was settled, or None when the lease was lost."""
        self.flow_id = claimed.flow.id
        self.record = claimed.flow
        self.lease: Lease = claimed.lease
        self.flow = flow
        self.host = host
        self.ended = False
        self.idle_since: float | None = None
        self.bodies: dict[str, StepBody] = {}
        self._on_end = on_end
        self._on_idle = on_idle
        self._entry = entry if entry is not None else self._entry_from_input
        self._inbox = list(claimed.inbox)
        self._inbox_seen = max((message.id for message in claimed.inbox), default=0)
        self._history: list[Event] = claimed.events
        self._seq = claimed.events[-1].seq if claimed.events else 0
        self._facts: list[Fact] = []
        self._consumed: list[int] = []
        self._messages: list[Message] = []
        self._children: list[NewFlow] = []
        self._in_flight: tuple[Commit, list[Fact]] | None = None
        self._settled: Settled | None = None
        self._taken: dict[str, int] = {}
        self._step_signals: list[tuple[str, str, StepBody, asyncio.Future[Event]]] = []
        self._step_children: dict[str, tuple[str, StepBody, asyncio.Future[Event]]] = {}
        self._cancel_reason: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._earlier: dict[str, list[Event]] = {}
        self._turning = False
        self._creating: set[asyncio.Task[None]] = set()
        self._fired: set[str] = set()
        assert claimed.flow.started_at is not None, "a claim sets started_at"
        self.machine = FlowMachine(
            flow_id=self.flow_id,
            started_at=claimed.flow.started_at,
            history=claimed.events,
            entry=self._entry,
            answer=self._answer,
            on_error=lambda context: host.on_flow_error(self.flow_id, context),
        )

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin in the next callback of the host loop."""
        self.host.loop.call_soon(self._revive)

    def _revive(self) -> None:
        if self.ended:
            return
        for event in self._history:
            if event.kind in _KEPT_FOR_STEPS:
                self._earlier.setdefault(event.op, []).append(event)
            elif event.kind == EventKind.CANCEL_REQUESTED:
                self._cancel_reason = _text(event.payload)
        self._history = []
        self._turning = True
        try:
            self.machine.revive()
        except ErgonError as error:  # the stored input no longer fits the code
            self._park(error)
            return
        finally:
            self._turning = False
        self._advance()

    def receive(self, messages: list[Received]) -> None:
        """Messages came for this flow; one that is known already is skipped."""
        fresh = [message for message in messages if message.id > self._inbox_seen]
        if not fresh or self.ended:
            return
        self._inbox_seen = fresh[-1].id
        self._inbox += fresh
        self._advance()

    def suspend(self) -> bool:
        """Let the flow go because it can only wait. False when it no longer can."""
        if self.idle_since is None or self._in_flight or self._facts or self.ended:
            return False
        self._let_go(TaskStatus.SUSPENDED)
        return True

    def drain(self) -> None:
        """The worker is shutting down: go at the next moment when no step runs, now if none does."""
        if self.idle_since is not None:
            self.suspend()
        else:
            self._advance()

    def give_back(self) -> None:
        """Let the flow go whatever it does; another worker goes on. Open steps are cancelled and run again there."""
        if not self.ended and self._settled is None:
            for body in self.bodies.values():
                body.drop()
            idle = self.idle_since is not None
            self._let_go(TaskStatus.SUSPENDED if idle else TaskStatus.PENDING)

    def abort(self, why: str) -> None:
        """The right to this flow is lost: forget it, write nothing."""
        if not self.ended:
            logger.warning("flow %s: %s; this run is void and writes nothing more", self.flow_id, why)
            self._end(None)

    # -- advance: from what happened to what is committed ------------------------------------------------

    def _advance(self) -> None:
        """Take in everything that happened since the last turn, and commit."""
        if self.ended or self._turning:
            return
        if self._settled is not None:
            self._flush()
            return
        machine = self.machine
        if machine.stopped is not None:
            self._park(machine.stopped)
            return
        if machine.new_patches:
            patches, machine.new_patches = machine.new_patches, []
            for name, source in patches:
                self._record(EventKind.PATCHED, name=name, source=source)
        for op in machine.take_abandoned():
            self._abandon(op)
        if machine.finished:
            self._finish()
            return
        if self.host.draining and not self._computing():
            self._let_go(TaskStatus.PENDING)
            return
        if not self.host.draining:
            for op in machine.take_requested():
                self._begin(op)
        if self._inbox or machine.reused_signals:
            self._take_inbox()
        if machine.attempt > 1:
            self._fire_reused()
        self._arm_timer()
        self._flush()
        self.may_be_idle()

    def _begin(self, op: Operation) -> None:
        reused = self.machine.reused.get(op.id)
        if reused is not None and reused.name == op.name and reused.digest == op.digest:
            self._record(reused.kind, op=op.id, name=op.name, digest=op.digest, payload=reused.payload, source=op.source)
            return
        if op.kind == OperationKind.STEP:
            body = self.bodies[op.id] = StepBody(self, op, self._earlier.pop(op.id, []))
            body.start()
            return
        assert op.kind == OperationKind.CHILD, op.kind
        child = new_child(self.record, op.request, op.id)
        if op.request.id is None:
            self._children.append(child)
        else:
            self._creating.add(self.host.loop.create_task(self._create_named_child(op, child)))

    async def _create_named_child(self, op: Operation, child: NewFlow) -> None:
        """A child whose id the flow chose: the id may be taken, so ask before counting on it."""
        try:
            while True:
                try:
                    existing = await self.host.log.create(child)
                    break
                except (LogFull, LogBusy):
                    await asyncio.sleep(RESUBMIT_SECONDS)
            if existing is not None and (existing.parent_id, existing.parent_op) != (child.parent_id, child.parent_op):
                self._child_failed(op, FlowIdConflict(f"child id {child.id!r} is taken by another flow"))
        finally:
            task = asyncio.current_task()
            assert task is not None
            self._creating.discard(task)
            self.may_be_idle()

    def _child_failed(self, op: Operation, error: Exception) -> None:
        if op.id in self.machine.pending and not self.ended and self._settled is None:
            self._record(
                EventKind.CHILD_FAILED,
                op=op.id,
                name=op.name,
                digest=op.digest,
                payload=describe(error),
                source=op.source,
            )
            self._flush()

    def _abandon(self, op: Operation) -> None:
        """The flow stopped waiting: cancel the body, or ask the child to cancel."""
        body = self.bodies.pop(op.id, None)
        if body is not None:
            body.drop()
        if op.kind == OperationKind.CHILD and not op.request.detached:
            child = op.request.id or new_child(self.record, op.request, op.id).id
            if any(new.id == child for new in self._children):
                self._children = [new for new in self._children if new.id != child]
            else:
                self._messages.append(Message(child, MessageKind.CANCEL, "", encode("its parent stopped waiting"), "parent"))

    def _take_inbox(self) -> None:
        """Turn messages that are wanted now into facts; keep the others, oldest first."""
        machine = self.machine
        wanted = machine.wanted_signals()
        for name, count in self._taken.items():
            wanted[name] = wanted.get(name, 0) - count
        for name, again in machine.reused_signals.items():
            while again and wanted.get(name, 0) > 0:
                wanted[name] -= 1
                self._take_signal(name, again.popleft().payload, digest=SEEN_AGAIN)
        kept: list[Received] = []
        for message in self._inbox:
            if message.kind == MessageKind.SIGNAL:
                if machine.reused_signals.get(message.name) or not self._take_wanted(message, wanted):
                    kept.append(message)
                continue
            if message.kind == MessageKind.CHILD and self._is_early(message):
                kept.append(message)
                continue
            self._consumed.append(message.id)
            if message.kind == MessageKind.CANCEL:
                self._take_cancel(message.payload)
            elif message.kind == MessageKind.CHILD:
                self._take_child(message)
        self._inbox = kept

    def _take_wanted(self, message: Received, wanted: dict[str, int]) -> bool:
        if wanted.get(message.name, 0) > 0:
            wanted[message.name] -= 1
            self._consumed.append(message.id)
            self._take_signal(message.name, message.payload, digest="")
            return True
        for index, (name, key, body, arrived) in enumerate(self._step_signals):
            if name == message.name and not arrived.done():
                del self._step_signals[index]
                self._consumed.append(message.id)
                self._answer_wait(body, key, message.payload, arrived)
                return True
        return False

    def _take_signal(self, name: str, payload: str | None, *, digest: str) -> None:
        self._taken[name] = self._taken.get(name, 0) + 1
        self._record(
            EventKind.SIGNAL_RECEIVED, name=name, payload=payload if payload is not None else "null", digest=digest
        )

    def _take_cancel(self, reason: str | None) -> None:
        if self._cancel_reason is None:
            self._cancel_reason = _text(reason)
            self._record(EventKind.CANCEL_REQUESTED, payload=reason)

    def _is_early(self, message: Received) -> bool:
        """The outcome of a child that a step body started, before the body (run again) asks for it."""
        return "#" in message.name and message.name not in self._step_children

    def _take_child(self, message: Received) -> None:
        kind, payload = outcome_of_message(message)
        op = self.machine.pending.get(message.name)
        if op is not None:
            self._record(kind, op=op.id, name=op.name, digest=op.digest, payload=payload, source=op.source)
            return
        waiting = self._step_children.pop(message.name, None)
        if waiting is not None:
            key, body, arrived = waiting
            self._answer_wait(body, key, message.payload, arrived)

    # -- timers ----------------------------------------------------------------------------------------

    def _fire_reused(self) -> None:
        """Timers that had fired in an earlier attempt of this flow fire at once in this one."""
        reused = self.machine.reused
        for timer in self.machine.loop.armed():
            if timer.op in reused and timer.op not in self._fired:
                self._fired.add(timer.op)
                self._record(EventKind.TIMER_FIRED, op=timer.op, name=timer.name)

    def _arm_timer(self) -> None:
        timer = self.machine.loop.next_timer()
        due = timer.when() if timer is not None else None
        deadline = self.record.deadline_at
        if deadline is not None and self._cancel_reason is None and (due is None or deadline < due):
            due = deadline
        if self._timer is not None:
            if due == self._timer_due and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer_due = due
            delay = min(max(due - self.host.log.now(), 0.0), 86_400.0)
            self._timer = self.host.loop.call_later(delay, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        if self.ended or self._settled is not None:
            return
        now = self.host.log.now()
        for timer in self.machine.loop.take_due(now):
            if timer.op in self._fired:
                continue
            self._record(EventKind.TIMER_FIRED, op=timer.op, name=timer.name, at=max(now, timer.when()))
        deadline = self.record.deadline_at
        if deadline is not None and deadline <= now:
            self._take_cancel(encode("its deadline passed"))
        self._arm_timer()
        self._flush()

    # -- commit ----------------------------------------------------------------------------------------

    def _record(
        self,
        kind: str,
        *,
        op: str = "",
        name: str = "",
        digest: str = "",
        payload: str | None = None,
        source: str = "",
        attempt: int = 0,
        at: float | None = None,
        value: Any = NOT_DECODED,
        after: Callable[[], None] | None = None,
    ) -> None:
        self._seq = seq = self._seq + 1
        event = Event(
            seq, kind, op, name, digest, payload, self.host.log.now() if at is None else at, source, attempt
        )
        self._facts.append(Fact(event, value, after))
        if op and kind in DELIVERED:
            self.machine.expect(event)
        self.idle_since = None

    def _flush(self) -> None:
        """Submit what has happened, unless a commit is in flight: then it shares the next one."""
        if self._in_flight is not None or self.ended:
            return
        facts, settled = self._facts, self._settled
        if not (facts or settled or self._children or self._messages or self._consumed):
            return
        commit = Commit(
            self.flow_id,
            self.lease,
            tuple([fact.event for fact in facts]),
            tuple(self._consumed),
            tuple(self._messages),
            tuple(self._children),
            settled,
        )
        self._facts = []
        if self._consumed or self._messages or self._children:
            self._consumed, self._messages, self._children = [], [], []
        self._in_flight = (commit, facts)
        self.host.log.submit(commit, self._landed)

    def _landed(self, error: BaseException | None) -> None:
        """The commit is durable, or refused. Called from a plain callback: the flow may run here."""
        if self.ended or self._in_flight is None:
            return
        commit, facts = self._in_flight
        if error is not None:
            self._refused(commit, error)
            return
        self._in_flight = None
        if commit.settled is not None:
            self._end(commit.settled)
            return
        if self._settled is not None:
            self._flush()  # let go meanwhile: what became durable is delivered by the next replay
            return
        machine = self.machine
        self._turning = True
        try:
            for event, value, after in facts:
                kind = event.kind
                if kind == EventKind.SIGNAL_RECEIVED:
                    self._taken[event.name] -= 1
                if after is not None:
                    after()
                if kind in DELIVERED:
                    machine.deliver(event) if value is NOT_DECODED else machine.deliver(event, value)
        finally:
            self._turning = False
        self._advance()

    def _refused(self, commit: Commit, error: BaseException) -> None:
        if isinstance(error, LeaseLost):
            self.abort(str(error))
        elif isinstance(error, LogFull | LogBusy):
            logger.warning("flow %s: %s; trying again in %g s", self.flow_id, error, RESUBMIT_SECONDS)
            self.host.loop.call_later(RESUBMIT_SECONDS, self._resubmit, commit)
        else:
            logger.error("flow %s: its commit failed: %s", self.flow_id, error, exc_info=error)
            self._end(None)

    def _resubmit(self, commit: Commit) -> None:
        if not self.ended:
            self.host.log.submit(commit, self._landed)

    # -- what step bodies report -------------------------------------------------------------------------

    def step_completed(self, body: StepBody, payload: str, value: Any) -> None:
        """A body returned; `value` is what the flow will see."""
        op = body.op
        if self.ended or self._settled is not None or self.bodies.pop(op.id, None) is None:
            return
        self._record(
            EventKind.STEP_COMPLETED,
            op=op.id,
            name=op.name,
            digest=op.digest,
            payload=payload,
            source=op.source,
            attempt=body.attempt,
            value=value,
        )
        self._flush()

    def step_failed(self, body: StepBody, error: Exception) -> None:
        """A body failed for good; the flow sees the error as it reads from the log."""
        op = body.op
        if self.ended or self._settled is not None or self.bodies.pop(op.id, None) is None:
            return
        self._record(
            EventKind.STEP_FAILED,
            op=op.id,
            name=op.name,
            digest=op.digest,
            payload=describe(error),
            source=op.source,
            attempt=body.attempt,
        )
        self._flush()

    def step_retried(self, body: StepBody, error: Exception, at: float, after: Callable[[], None]) -> None:
        """An attempt failed; the next one starts at `at`, once this is durable."""
        self.step_event(EventKind.STEP_RETRIED, body, payload=describe(error), at=at, after=after)

    def step_event(
        self,
        kind: str,
        body: StepBody,
        *,
        name: str = "",
        payload: str | None = None,
        at: float | None = None,
        after: Callable[[], None],
    ) -> None:
        """Something about an open step that the flow does not see."""
        if self.ended or self._settled is not None:
            return
        op = body.op
        self._record(
            kind,
            op=op.id,
            name=name or op.name,
            digest=op.digest,
            payload=payload,
            source=op.source,
            attempt=body.attempt,
            at=at,
            after=after,
        )
        self._flush()

    def want_signal(self, body: StepBody, name: str, key: str, arrived: asyncio.Future[Event]) -> None:
        """A body waits for a signal: `arrived` gets its event once that is durable."""
        self._step_signals.append((name, key, body, arrived))
        self._advance()

    def unwant(self, arrived: asyncio.Future[Event]) -> None:
        """The body waits no more."""
        self._step_signals = [wait for wait in self._step_signals if wait[3] is not arrived]

    def start_child_of_step(self, body: StepBody, request: Any, key: str, arrived: asyncio.Future[Event]) -> None:
        """A body starts a child flow; `arrived` gets the event with its outcome."""
        operation = f"{body.op.id}/{key}"
        self._step_children[operation] = (key, body, arrived)
        self._children.append(new_child(self.record, request, operation))
        self._advance()

    def child_outcome(self, request: Any, payload: str) -> Any:
        """The result of a child flow as its message tells it; raises the error it failed with."""
        return child_outcome(request, payload)

    def _answer_wait(self, body: StepBody, key: str, payload: str | None, arrived: asyncio.Future[Event]) -> None:
        def durable() -> None:
            event = Event(0, EventKind.STEP_WAITED, body.op.id, key, "", payload, 0.0, "", body.attempt)
            body.remember(event)
            if not arrived.done():
                arrived.set_result(event)

        self.step_event(EventKind.STEP_WAITED, body, name=key, payload=payload, after=durable)

    async def wait_may_start(self) -> None:
        """Hold a body back while the lease is in doubt."""
        while not self.host.may_start():
            await asyncio.sleep(0.05)

    # -- idle and end ----------------------------------------------------------------------------------

    def not_idle(self) -> None:
        """A body computes again."""
        self.idle_since = None

    def may_be_idle(self) -> None:
        """Notice that the flow can only wait: no body computes, nothing is on its way to the log."""
        if self.idle_since is not None or self.ended or self._turning or self._settled is not None:
            return
        if self._in_flight is not None or self._facts or self._children or self._messages or self._creating:
            return
        if self._computing():
            return
        self.idle_since = self.host.loop.time()
        if self._on_idle is not None:
            self._on_idle(self)

    def _computing(self) -> bool:
        return any(body.waiting is None for body in self.bodies.values())

    @property
    def wake_at(self) -> float | None:
        """When the flow goes on by itself, by the log's clock, or None when only a message can wake it."""
        timer = self.machine.loop.next_timer()
        due = [timer.when()] if timer is not None else []
        due += [body.waiting["due"] for body in self.bodies.values() if body.waiting and "due" in body.waiting]
        if self.record.deadline_at is not None and self._cancel_reason is None:
            due.append(self.record.deadline_at)
        return min(due, default=None)

    def waits(self) -> str:
        """What the flow does or waits for, as JSON."""
        bodies = [
            body.waiting
            or {
                "kind": "step",
                "name": body.op.name,
                "op": body.op.id,
                "since": body.op.asked_at,
                "attempt": body.attempt,
                "source": body.op.source,
            }
            for body in self.bodies.values()
        ]
        return describe_waits(self.machine, bodies)

    def _let_go(self, status: TaskStatus) -> None:
        wake_at = self.wake_at if status is TaskStatus.SUSPENDED else None
        self._settle_as(Settled(status, None, wake_at, self.waits(), self._inbox_seen))

    def _park(self, why: ErgonError) -> None:
        logger.error("flow %s is parked: %s", self.flow_id, why)
        for body in self.bodies.values():
            body.drop()
        self._settle_as(Settled(TaskStatus.PARKED, reason=str(why), inbox_seen=self._inbox_seen))

    def _finish(self) -> None:
        root = self.machine.root
        assert root is not None
        verdict = settle(
            root,
            self.flow,
            flow_id=self.flow_id,
            attempt=self.machine.attempt,
            cancel_reason=self._cancel_reason,
        )
        for body in self.bodies.values():
            body.drop()
        if isinstance(verdict, Retry):
            at = self.host.log.now() + verdict.delay_seconds
            self._record(EventKind.FLOW_RETRIED, payload=verdict.failure, at=at, attempt=self.machine.attempt)
            reason = encode([{"kind": "retry", "name": self.flow.name, "op": "", "due": at}])
            verdict = Settled(TaskStatus.SUSPENDED, None, at, reason, self._inbox_seen)
        self._settle_as(verdict)

    def _settle_as(self, settled: Settled) -> None:
        """Commit how the flow is left, together with everything that has happened."""
        self._settled = settled
        self.idle_since = None
        self._flush()  # with a commit in flight this does nothing; `_landed` flushes again

    def _end(self, settled: Settled | None) -> None:
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        for body in self.bodies.values():
            body.drop()
        for task in self._creating:
            task.cancel()
        self.bodies.clear()
        if self.machine.loop.tasks:
            # In a callback of its own: flow code must never run inside a host task, and we may be in one.
            self.host.loop.call_soon(self.machine.dismiss)
        self._on_end(self, settled)

    # -- for the machine -------------------------------------------------------------------------------

    def _entry_from_input(self) -> Coroutine[Any, Any, Any]:
        args, kwargs = self.flow.decode_input(self.record.input)
        return self.flow.function(*args, **kwargs)  # type: ignore[no-any-return]

    def _answer(self, op: Operation, event: Event) -> Any:
        """Decode a recorded answer, or raise the recorded error."""
        payload = event.payload if event.payload is not None else "null"
        if event.kind in _FAILURES:
            raise rebuild(payload)
        decoder = op.request.call.flow.result_decoder if op.kind == OperationKind.CHILD else op.request.step.decoder
        try:
            return decoder.decode(payload)
        except DecodingError as error:
            self.machine.stop(
                DecodingError(
                    f"the recorded result of {op} no longer fits its annotation: {error}. Give new fields a default, or "
                    "guard the change with `patched(id)`",
                    path=error.path,
                )
            )
            return None


def _text(payload: str | None) -> str:
    """A cancel reason as its sender wrote it."""
    try:
        return str(decoder_for(str).decode(payload)) if payload is not None else ""
    except DecodingError:
        return payload or ""


_FAILURES: Final = frozenset({EventKind.STEP_FAILED, EventKind.CHILD_FAILED})
_KEPT_FOR_STEPS: Final = frozenset({EventKind.STEP_STARTED, EventKind.STEP_RETRIED, EventKind.STEP_WAITED})
