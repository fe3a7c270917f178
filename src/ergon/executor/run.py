"""One flow in memory, from its claim until it is let go.

    revive: replay the history, learn what is still open
    advance: start what the flow asked for, take in what arrived, commit what has happened
    landed: what is durable is delivered to the flow, which asks for more
    settle: it ended, or can only wait; let it go

The flow learns a fact only when it is durable, so a crash at any await leaves a history that leads to the same
place: facts not yet durable are forgotten with the process, and what led to them (a step, a timer, a message) is
still open. Flow code runs only in `_revive` and `_landed`, which are plain callbacks of the host loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ergon.core.commit import ClaimedFlow, Received, Settled
from ergon.core.failure import describe, rebuild
from ergon.core.history import Event, EventKind
from ergon.core.status import TaskStatus
from ergon.errors import DecodingError, ErgonError
from ergon.executor.alarm import Alarm
from ergon.executor.body import StepBody
from ergon.executor.body_waits import StepWait
from ergon.executor.children import Children
from ergon.executor.earlier import begins_attempt, read_earlier
from ergon.executor.host import Host
from ergon.executor.inbox import Inbox
from ergon.executor.outbox import Fact, Outbox
from ergon.executor.settling import Retry, backing_off, settle, still_backing_off
from ergon.executor.waits import describe_waits
from ergon.replay.machine import NOT_DECODED, FlowMachine
from ergon.replay.operations import Operation, OperationKind

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from ergon.flows.children import ChildRequest
    from ergon.flows.flow import Flow

logger = logging.getLogger("ergon.executor")


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
    ) -> None:
        """`on_end` is called once: with how the flow was settled, or None when the lease was lost."""
        record = claimed.flow
        assert record.started_at is not None, "a claim sets started_at"
        self.flow_id = record.id
        self.record = record
        self.flow = flow
        self.host = host
        self.ended = False
        self.idle_since: float | None = None
        """When the flow began to only wait, by the host loop's clock; None while it does more."""
        self.bodies: dict[str, StepBody] = {}
        self._on_end = on_end
        self._on_idle = on_idle
        self._history: list[Event] = claimed.events
        self._earlier: dict[str, list[Event]] = {}
        self.turns = 0
        """How often something was delivered to the flow: while it stays the same, no flow code has run."""
        # Until it is revived it wants no message, and one that came now would seem needless: nothing advances before.
        self._turning = True
        self.machine = FlowMachine(
            flow_id=record.id,
            started_at=record.started_at,
            history=claimed.events,
            entry=self._entry,
            answer=self._answer,
            on_error=lambda context: host.on_flow_error(record.id, context),
        )
        self.machine.ran_before = record.epoch > 1 and not begins_attempt(claimed.events)
        self.outbox = Outbox(
            record.id,
            claimed.lease,
            host,
            last_seq=claimed.events[-1].seq if claimed.events else 0,
            announce=self.machine.expect,
            on_landed=self._landed,
            on_lost=self.abort,
        )
        self.inbox = Inbox(
            claimed.inbox,
            self.machine,
            self.outbox,
            seen=claimed.inbox_seen,
            retry_now=self._retry_now,
        )
        self._children = Children(record, self.outbox, self.inbox)
        self._alarm = Alarm(
            host, self.machine, self.outbox, self.inbox, deadline_at=record.deadline_at, flush=self._flush
        )

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin in the next callback of the host loop."""
        self.host.loop.call_soon(self._revive)

    def _revive(self) -> None:
        if self.ended:
            return
        if (until := still_backing_off(self._history, self.inbox.messages, self.host.log.now())) is not None:
            self._settle(backing_off(self.flow, until, self.inbox.seen))
            return
        self._earlier, self.inbox.cancel_reason = read_earlier(self._history)
        self._history = []
        self._turning = True
        try:
            self.machine.revive()
        except Exception as error:  # noqa: BLE001 - the stored input no longer fits the code, or a defect of ours
            self._park(error)
            return
        finally:
            self._turning = False
        self._advance()

    def receive(self, messages: list[Received]) -> None:
        """Messages came for this flow."""
        if not self.ended and self.inbox.add(messages):
            self._advance()

    def suspend(self) -> bool:
        """Let the flow go because it can only wait. False when it no longer can."""
        if not self._can_only_wait():
            return False
        if self._computing():  # in another branch of a body that waits
            self.idle_since = self.host.loop.time()
            return False
        self._let_go(TaskStatus.SUSPENDED)
        return True

    def drain(self) -> None:
        """The worker is shutting down: go at the next moment when no step runs, now if none does."""
        if not self.suspend():
            self._advance()

    def give_back(self) -> None:
        """Let the flow go whatever it does; another worker goes on. Open steps are cancelled and run again there."""
        if not self.ended and self.outbox.settled is None:
            idle = self._can_only_wait() and not self._computing()
            status = TaskStatus.SUSPENDED if idle else TaskStatus.PENDING
            for body in self.bodies.values():
                body.drop()
            self._let_go(status)

    def abort(self, why: str) -> None:
        """The right to this flow is lost: forget it, write nothing."""
        if not self.ended:
            logger.warning("flow %s: %s; this run is void and writes nothing more", self.flow_id, why)
            self._end(None)

    def taken_away(self, status: TaskStatus | None) -> None:
        """The log says that this run owns the flow no more, and where it stands (None: it is gone)."""
        if self.outbox.settled is None:  # else it may be our own doing, and the commit tells
            self.abort(
                "it was taken over" if status is TaskStatus.RUNNING else f"the flow is {status or 'gone'}"
            )

    # -- advance: from what happened to what is committed ------------------------------------------------

    def _advance(self) -> None:
        """Take in everything that happened since the last turn, and commit."""
        if self.ended or self._turning:
            return
        try:
            self._choose_move()
        except Exception as error:  # noqa: BLE001 - a defect of ours: the flow waits for a mend, nothing is lost
            self._park(error)

    def _choose_move(self) -> None:
        machine = self.machine
        if self.outbox.settled is not None:
            self.outbox.flush()
        elif machine.stopped is not None:
            self._park(machine.stopped)
        elif machine.finished:
            self._note_patches()
            self._children.leave(machine)
            self._finish()
        elif self.host.draining and not self._computing():
            self._note_patches()
            self._let_go(TaskStatus.PENDING)
        else:
            self._go_on()

    def _go_on(self) -> None:
        machine = self.machine
        if machine.new_patches:
            self._note_patches()
        if machine.abandoned:
            for op in machine.take_abandoned():
                self._abandon(op)
        if self.inbox.messages or (machine.attempt > 1 and machine.earlier.signals):
            self.inbox.take()
            if machine.stopped is not None:
                self._park(machine.stopped)
                return
        if machine.requested:
            self._alarm.pass_deadline()  # before anything is started that it forbids
        if machine.requested and not self.host.draining and not self._about_to_cancel():
            for op in machine.take_requested():
                self._begin(op)
        self._alarm.set()
        self.outbox.flush()
        self.may_be_idle()

    def _begin_steps(self) -> bool:
        """`_go_on` for the usual turn: the flow asked for steps, and nothing else happened. False: it is not one."""
        machine, host = self.machine, self.host
        requested = machine.requested
        if not requested or host.draining or self._earlier or machine.attempt > 1:
            return False
        if self.inbox.messages or self.inbox.cancel_reason is not None:
            return False
        machine.requested = []
        bodies, runner = self.bodies, host.runner
        for op in requested:
            if op.kind == OperationKind.STEP and op.request.step.is_plain:
                body = bodies[op.id] = StepBody(self, op, None)
                runner.start(body)
            else:
                self._begin(op)
        if self.outbox.facts or self.outbox.children:
            self.outbox.flush()
        return True

    def _about_to_cancel(self) -> bool:
        """True while the flow does not know yet that it is to stop: nothing new is started for it then."""
        return self.inbox.cancel_reason is not None and not self.machine.cancel_asked

    def _note_patches(self) -> None:
        """The flow took new branches; this lands no later than anything that follows from it."""
        patches, self.machine.new_patches = self.machine.new_patches, []
        for name, source in patches:
            self.outbox.record(EventKind.PATCHED, name=name, source=source)

    def _begin(self, op: Operation) -> None:
        if self.machine.has_answer(op):
            return  # from a message that came while the flow was not here
        reused = self.machine.earlier.completed.get(op.id)
        if reused is not None and reused.name == op.name and reused.digest == op.digest:
            self.outbox.answer_later(op, reused.kind, reused.payload)
        elif op.kind == OperationKind.STEP:
            body = self.bodies[op.id] = StepBody(self, op, self._earlier.pop(op.id, []))
            body.start()
        else:
            assert op.kind == OperationKind.CHILD, op.kind
            self._children.start(op)

    def _abandon(self, op: Operation) -> None:
        """The flow stopped waiting: cancel the body, or ask the child to cancel."""
        body = self.bodies.pop(op.id, None)
        if body is not None:
            body.drop()
            if body.waits is not None:
                for key, flow_id in body.waits.children.items():
                    self._children.cancel(flow_id, f"{op.id}/{key}")
        if op.kind == OperationKind.CHILD and not op.request.detached:
            self._children.cancel(op.request.flow_id, op.id)

    def _flush(self) -> None:
        self.idle_since = None
        self.outbox.flush()

    def _landed(self, facts: list[Fact], settled: Settled | None) -> None:
        """A commit is durable: deliver what it holds. Called from a plain callback, so the flow may run here."""
        if settled is not None:
            self._end(settled)
            return
        if self.outbox.settled is not None:
            self.outbox.flush()  # let go meanwhile: what became durable is delivered by the next replay
            return
        self.turns += 1
        self.idle_since = None
        self._turning = True
        try:
            if len(facts) == 1 and facts[0][1] is not NOT_DECODED:
                event, value, _ = facts[0]
                if self.machine.answer_step(event, value) and self._begin_steps():
                    return
            else:
                for event, _, after in facts:
                    if after is not None:
                        after()
                    elif event.kind == EventKind.SIGNAL_RECEIVED:
                        self.inbox.delivered(event.name)
                self.machine.deliver_all(facts)
        except Exception as error:  # noqa: BLE001 - a defect of ours: the flow waits for a mend, nothing is lost
            self._park(error)
            return
        finally:
            self._turning = False
        self._advance()

    # -- what step bodies report -------------------------------------------------------------------------

    def step_completed(self, body: StepBody, payload: str, value: Any) -> None:
        """A body returned; `value` is what the flow will see."""
        if not body.dropped and self.outbox.settled is None:
            op = body.op
            del self.bodies[op.id]
            self.idle_since = None
            self.outbox.answer(op, EventKind.STEP_COMPLETED, payload, body.attempt, value)

    def step_failed(self, body: StepBody, error: Exception) -> None:
        """A body failed for good; the flow sees the error as it reads from the log."""
        if not body.dropped and self.outbox.settled is None:
            del self.bodies[body.op.id]
            self.step_event(EventKind.STEP_FAILED, body.op, body.attempt, payload=describe(error))

    def step_event(
        self,
        kind: str,
        op: Operation,
        attempt: int,
        *,
        name: str = "",
        payload: str | None = None,
        at: float | None = None,
        after: Callable[[], None] | None = None,
        flush: bool = True,
    ) -> None:
        """Something about a step; `after` is called when it is durable."""
        if not self.ended and self.outbox.settled is None:
            self.outbox.record(
                kind,
                op=op.id,
                name=name or op.name,
                digest=op.digest,
                payload=payload,
                source=op.source,
                attempt=attempt,
                at=at,
                after=after,
            )
            if flush:
                self._flush()

    def want_signal(self, name: str, wait: StepWait) -> None:
        """A body waits for a signal."""
        self.inbox.want_signal(name, wait)
        self._advance()

    def start_child_of_step(self, request: ChildRequest, operation: str, wait: StepWait) -> None:
        """A body starts a child flow."""
        self._children.start_for_step(request, operation, wait)
        self._advance()

    def _retry_now(self) -> None:
        for body in self.bodies.values():
            body.retry_now()

    # -- idle and end ----------------------------------------------------------------------------------

    def not_idle(self) -> None:
        """A body computes again."""
        self.idle_since = None

    def may_be_idle(self) -> None:
        """Notice that the flow can only wait, or that it no longer does."""
        if not self._can_only_wait():
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = self.host.loop.time()
            if self._on_idle is not None:
                self._on_idle(self)

    def _can_only_wait(self) -> bool:
        """True when every body waits, nothing is on its way to the log, and nothing is about to start."""
        for body in self.bodies.values():
            if (waits := body.waits) is None or not waits.idle:
                return False
        if self.ended or self._turning or self.outbox.is_sealed:
            return False
        return self.outbox.is_empty and not self.machine.requested

    def _computing(self) -> bool:
        """True when a body does more than wait durably. Not for each turn."""
        return any(body.computes() for body in self.bodies.values())

    @property
    def wake_at(self) -> float | None:
        """When the flow goes on by itself, by the log's clock, or None when only a message can wake it."""
        waits = [body.waits for body in self.bodies.values() if body.waits is not None]
        due = [due for each in waits if (due := each.due) is not None]
        alarm = self._alarm.due
        return min(due if alarm is None else [*due, alarm], default=None)

    def waits(self) -> str:
        """What the flow does or waits for, as JSON."""
        return describe_waits(
            self.machine, [told for body in self.bodies.values() for told in body.describe()]
        )

    def _let_go(self, status: TaskStatus) -> None:
        wake_at = self.wake_at if status is TaskStatus.SUSPENDED else None
        self._settle(Settled(status, None, wake_at, self.waits(), self.inbox.seen))

    def _park(self, why: Exception) -> None:
        reason = str(why)
        if isinstance(why, ErgonError):
            logger.error("flow %s is parked: %s", self.flow_id, why)
        else:
            reason = f"Ergon failed to run it: {type(why).__name__}: {why}"
            logger.error("flow %s is parked: %s", self.flow_id, reason, exc_info=why)
        self._settle(Settled(TaskStatus.PARKED, reason=reason, inbox_seen=self.inbox.seen))

    def _finish(self) -> None:
        root = self.machine.root
        assert root is not None
        attempt, cancel_reason = self.machine.attempt, self.inbox.cancel_reason
        verdict = settle(root, self.flow, flow_id=self.flow_id, attempt=attempt, cancel_reason=cancel_reason)
        if isinstance(verdict, Retry):
            at = self.host.log.now() + verdict.delay_seconds
            self.outbox.record(EventKind.FLOW_RETRIED, payload=verdict.failure, at=at, attempt=attempt)
            verdict = backing_off(self.flow, at, self.inbox.seen)
        self._settle(verdict)

    def _settle(self, settled: Settled) -> None:
        """Commit how the flow is left, together with everything that has happened."""
        for body in self.bodies.values():
            body.drop()
        self.outbox.settled = settled
        self._flush()  # with a commit in flight this does nothing; `_landed` flushes again

    def _end(self, settled: Settled | None) -> None:
        self.ended = True
        if settled is not None and settled.status.is_terminal:
            self._children.tell_of_taken(self.host)
        for body in self.bodies.values():
            body.drop()
        self.bodies.clear()
        # The parts forget whom they tell, so that all of the run goes at once and not by the garbage collector.
        self.outbox.close()
        self.inbox.close()
        self._alarm.close()
        if self.machine.loop.tasks:
            # In a callback of its own: flow code must never run inside a host task, and we may be in one.
            self.host.loop.call_soon(self.machine.dismiss)
        else:
            self.machine.close()
        self._on_end(self, settled)

    # -- for the machine -------------------------------------------------------------------------------

    def _entry(self) -> Coroutine[Any, Any, Any]:
        args, kwargs = self.flow.decode_input(self.record.input)
        return self.flow.function(*args, **kwargs)  # type: ignore[no-any-return]

    def _answer(self, op: Operation, event: Event) -> Any:
        """Decode a recorded answer, or raise the recorded error."""
        payload = event.payload if event.payload is not None else "null"
        if event.kind in _FAILURES:
            raise rebuild(payload)
        decoder = (
            op.request.call.flow.result_decoder if op.kind == OperationKind.CHILD else op.request.step.decoder
        )
        try:
            return decoder.decode(payload)
        except DecodingError as error:
            self.machine.stop(
                DecodingError(
                    f"the recorded result of {op} no longer fits its annotation: {error}. Give new fields a "
                    "default, or guard the change with `patched(id)`",
                    path=error.path,
                )
            )
            return None


_FAILURES: Final = frozenset({EventKind.STEP_FAILED, EventKind.CHILD_FAILED})
