"""One flow in memory, from its claim until it is let go.

    revive: replay the history, learn what is still open
    advance: start what the flow asked for, take in what arrived, commit what has happened
    landed: what is durable is delivered to the flow, which asks for more
    settle: it ended, or can only wait; let it go

The flow learns a fact only when it is durable, so a crash at any await leaves a history that leads to the same
place: facts not yet durable are forgotten with the process, and what led to them (a step, a timer, a message) is
still open. Flow code runs only in `_revive`, `answered` and `landed`, which are plain callbacks of the host loop. The
bodies of its open steps are in `work.py`; what its end comes to is decided in `settling.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ergon.core.commit import ClaimedFlow, Received, Settled
from ergon.core.history import Event, EventKind
from ergon.core.status import TaskStatus
from ergon.errors import ErgonError, LeaseLost
from ergon.executor.alarm import Alarm
from ergon.executor.answers import enter, read_answer
from ergon.executor.earlier import begins_attempt, read_earlier
from ergon.executor.host import Host, tell_flow_error
from ergon.executor.idleness import Look
from ergon.executor.inbox import Inbox
from ergon.executor.outbox import Fact, Outbox
from ergon.executor.settling import Retry, backing_off, settle, still_backing_off
from ergon.executor.waits import NOT_BEGUN, describe_waits
from ergon.executor.work import Work
from ergon.replay.machine import FlowMachine
from ergon.replay.operations import OperationKind

if TYPE_CHECKING:
    from ergon.flows.flow import Flow

logger = logging.getLogger("ergon.executor")

_ACTS: Final = frozenset(
    {
        TaskStatus.PAUSED.value,
        TaskStatus.CANCELLED.value,
        LeaseLost.GONE,
        LeaseLost.CLAIMED_AGAIN,
    }
)
"""How a flow stands that somebody took from its run on purpose; `GONE`: it was deleted, `CLAIMED_AGAIN`: it was paused
and resumed. One that is pending was resumed, or freed as its worker was declared dead, of which people must hear."""
_TAKEN: Final = frozenset({TaskStatus.RUNNING.value, TaskStatus.COMPLETED.value, TaskStatus.FAILED.value})
"""How one stands that another worker runs, or has ended meanwhile."""


class FlowRun:
    """A claimed flow that lives here."""

    __slots__ = (
        "_alarm",
        "_history",
        "_interrupted",
        "_is_first_run",
        "_on_end",
        "_on_idle",
        "_turning",
        "ended",
        "flow",
        "flow_id",
        "host",
        "inbox",
        "machine",
        "outbox",
        "record",
        "work",
    )

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
        self._on_end = on_end
        self._on_idle = on_idle
        self._history: Sequence[Event] = claimed.events or ()
        # Until it is revived it wants no message, and one that came now would seem needless: nothing advances before.
        self._turning = True
        self._interrupted = False
        self.machine = FlowMachine(
            flow_id=record.id,
            started_at=record.started_at,
            history=self._history,
            entry=partial(enter, flow, record.input),
            answer=read_answer,
            on_error=tell_flow_error,
        )
        # A flow that wakes every second has a million claims one day, and counts from 0 again: its history tells then.
        self._is_first_run = record.claims == 1 and not claimed.events
        self.machine.ran_before = not self._is_first_run and not begins_attempt(claimed.events)
        self.outbox = Outbox(
            record.id,
            claimed.lease,
            host,
            self.machine,
            self,
            last_seq=claimed.events[-1].seq if claimed.events else 0,
        )
        self.inbox = Inbox(claimed.inbox, self.machine, self.outbox, seen=claimed.inbox_seen)
        self.work = Work(
            record,
            host,
            self.machine,
            self.outbox,
            self.inbox,
            self,
        )
        self._alarm: Alarm | None = None

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin in the next callback of the host loop."""
        self.host.loop.call_soon(self._revive)

    def _revive(self) -> None:
        if self.ended:
            return
        if (until := still_backing_off(self._history, self.inbox.others, self.host.now())) is not None:
            self._settle(backing_off(self.flow, until, self.inbox.seen))
            return
        if self._history:
            self.work.earlier, self.inbox.cancels = read_earlier(self._history)
        history, self._history = self._history, ()
        self._turning = True
        try:
            self.machine.revive()
        except BaseException as error:  # noqa: BLE001 - told apart there; also a stored input that no longer fits
            self._turn_failed(error)
            return
        self._turning = False
        if not self._is_first_run:
            self.work.given_up.revived(history)
        self.advance()

    def receive(self, messages: list[Received]) -> None:
        """Messages came for this flow."""
        if not self.ended and self.inbox.add(messages):
            self.advance()

    def suspend(self, look: Look | None = None) -> bool:
        """Let the flow go because it can only wait. False when it no longer can.

        `look`: at all bodies of the loop, for many flows in one turn; so below.
        """
        if not self._can_only_wait():
            return False
        look = look or Look()
        if self.work.computes(look) or self.work.has_limits(look):  # in another branch of a body that waits
            self.work.idle_since = self.host.loop.time()
            return False
        if self.inbox.others and (error := self.work.asks_for_others()) is not None:
            self.machine.stop(error)
            self.park(error)
        else:
            self._let_go(TaskStatus.PENDING if self.work.starts_anew else TaskStatus.SUSPENDED)
        return True

    def drain(self, look: Look | None = None) -> None:
        """The worker is shutting down: go at the next moment when no step runs, now if none does."""
        look = look or Look()
        if self._can_only_wait() and not self.work.computes(look):
            self._let_go(self._idle_status(look))
        else:
            self.advance()

    def give_back(self, look: Look | None = None) -> None:
        """Let the flow go whatever it does; another worker goes on. Open steps are cancelled and run again there."""
        if not self.ended and self.outbox.settled is None:
            look = look or Look()
            idle = self._can_only_wait() and not self.work.computes(look)
            status = self._idle_status(look) if idle else TaskStatus.PENDING
            self.work.drop()
            self._let_go(status)

    def _idle_status(self, look: Look) -> TaskStatus:
        """How to leave a flow that can only wait, when the process ends.

        Ctrl-C may have struck anywhere, also between taking something in and acting on it. A flow that waits for a
        step that nobody runs, or for nothing at all, would never be woken: another run looks at it. It does too where a
        step's body waits under a time limit of its own, which begins anew there and would not while the flow is away.
        """
        if self.work.has_limits(look):
            return TaskStatus.PENDING
        machine, bodies = self.machine, self.work.bodies
        for op in machine.pending.values():
            if op.kind == OperationKind.STEP and op.id not in bodies:
                return TaskStatus.PENDING
        waits = machine.pending or machine.loop.has_timers or machine.wanted_signals()
        return TaskStatus.SUSPENDED if waits else TaskStatus.PENDING

    def interrupt(self) -> None:
        """The process is asked to end in the middle of a turn, by Ctrl-C or `sys.exit`: the flow goes on elsewhere.

        What the turn came to is unknown and not recorded. All before it is in the log, so another run repeats it.
        """
        self._interrupted = True
        self.host.loop.call_soon(self.give_back)  # should the loop go on, such as to clean up

    def abort(self, why: str, level: int = logging.WARNING) -> None:
        """The right to this flow is lost: forget it, write nothing. `level`: of the log line that says so."""
        if not self.ended:
            logger.log(level, "flow %s: %s; this run is void and writes nothing more", self.flow_id, why)
            self._end(None)

    def taken_away(self, status: TaskStatus | None) -> None:
        """The log says that this run owns the flow no more, and where it stands (None: it is gone)."""
        if self.outbox.settled is None:  # else it may be our own doing, and the commit tells
            stands = status.value if status is not None else LeaseLost.GONE
            self.lose("it was taken over" if stands in _TAKEN else f"the flow is {stands} by now", stands)

    def lose(self, why: str, status: str) -> None:
        """The flow is another's, or nobody's and stands like this; `why`: for those that nobody took on purpose."""
        if status in _ACTS:
            self.abort(f"the flow is {status}", logging.INFO)  # nothing to be warned of
        else:
            self.abort(why)

    # -- advance: from what happened to what is committed ------------------------------------------------

    def advance(self) -> None:
        """Take in everything that happened since the last turn, and commit."""
        if self.ended or self._turning or self._interrupted:
            return
        try:
            self._choose_move()
        except (SystemExit, KeyboardInterrupt):
            self.interrupt()
            raise
        except Exception as error:  # noqa: BLE001 - a defect of ours: the flow waits for a mend, nothing is lost
            self.park(error)

    def _choose_move(self) -> None:
        machine = self.machine
        if self.outbox.settled is not None:
            self.outbox.flush()
        elif machine.stopped is not None:
            self.park(machine.stopped)
        elif machine.finished:
            self._note_patches()
            if machine.pending:
                self.work.children.leave(machine)
            self._finish()
        elif self.host.draining and not self.work.computes(Look()):
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
                self.work.given_up.abandon(op)
        if self.work.starts_anew and not self.work.bodies:
            self._let_go(TaskStatus.PENDING)
            return
        inbox = self.inbox
        if inbox.signals or inbox.others or (machine.attempt > 1 and machine.earlier.signals):
            inbox.take()
            if machine.stopped is not None:
                self.park(machine.stopped)
                return
        if machine.requested:
            self._begin_requested()
            if machine.stopped is not None:
                self.park(machine.stopped)
                return
        if self._needs_alarm:
            self.alarm.set()
        self.outbox.flush()
        self.work.may_be_idle()

    def _begin_requested(self) -> None:
        if self.record.deadline_at is not None:
            self.alarm.pass_deadline()  # before anything is started that it forbids
        if not self.host.draining and not self._about_to_cancel():
            self.work.begin_all(self.machine.take_requested())

    @property
    def _needs_alarm(self) -> bool:
        return (
            self._alarm is not None or bool(self.machine.loop.timers) or self.record.deadline_at is not None
        )

    @property
    def alarm(self) -> Alarm:
        """What wakes the flow when its next timer or its deadline is due. Most flows need none."""
        if self._alarm is None:
            self._alarm = Alarm(
                self.host,
                self.machine,
                self.outbox,
                self.inbox,
                self.work,
                deadline_at=self.record.deadline_at,
            )
        return self._alarm

    def _about_to_cancel(self) -> bool:
        """True while the flow does not know yet that it is to stop: nothing new is started for it then."""
        return self.inbox.cancels_under_way > 0

    def _note_patches(self) -> None:
        """The flow took new branches; this lands no later than anything that follows from it."""
        patches, self.machine.new_patches = self.machine.new_patches, ()
        for name, source in patches:
            self.outbox.record(EventKind.PATCHED, name=name, source=source)

    def answered(self, event: Event, value: Any) -> None:
        """A step's result is durable and nothing else was in its commit: `landed` for the usual case."""
        if self.outbox.settled is not None:
            self.outbox.flush()
            return
        work = self.work
        work.turns += 1
        work.idle_since = None
        self._turning = True
        try:
            if self.machine.answer_step(event, value) and work.begin_steps():
                self._turning = False
                return
        except BaseException as error:  # noqa: BLE001 - told apart there
            self._turn_failed(error)
            return
        self._turning = False
        self.advance()

    def landed(self, facts: list[Fact], settled: Settled | None) -> None:
        """A commit is durable: deliver what it holds. Called from a plain callback, so the flow may run here."""
        if settled is not None:
            self._end(settled)
            return
        if self.outbox.settled is not None:
            self.outbox.flush()  # let go meanwhile: what became durable is delivered by the next replay
            return
        work = self.work
        work.turns += 1
        work.idle_since = None
        self._turning = True
        try:
            self._deliver(facts)
        except BaseException as error:  # noqa: BLE001 - told apart there
            self._turn_failed(error)
            return
        self._turning = False
        self.advance()

    def _turn_failed(self, error: BaseException) -> None:
        """A turn raised what no flow's code does: the process is to end, or a defect of ours parks the flow."""
        self._turning = False
        if not isinstance(error, Exception):
            self.interrupt()
            raise error
        self.park(error)

    def _deliver(self, facts: list[Fact]) -> None:
        for event, _, after in facts:
            if after is not None:
                after()
            elif event.kind == EventKind.SIGNAL_RECEIVED:
                self.inbox.delivered(event.name)
            elif event.kind == EventKind.CANCEL_REQUESTED:
                self.inbox.cancels_under_way -= 1
            elif event.kind == EventKind.RETRY_NOW:
                self.work.retry_now()
        self.machine.deliver_all(facts)

    # -- idle and end ----------------------------------------------------------------------------------

    def went_idle(self) -> None:
        """The flow has begun to only wait."""
        if self._on_idle is not None:
            self._on_idle(self)

    def _can_only_wait(self) -> bool:
        return not (self._turning or self._interrupted) and self.work.can_only_wait()

    @property
    def wake_at(self) -> float | None:
        """When the flow goes on by itself, by the log's clock, or None when only a message can wake it."""
        due, alarm = self.work.due, self.alarm.due if self._needs_alarm else None
        return min(due if alarm is None else [*due, alarm], default=None)

    def waits(self) -> str:
        """What the flow does or waits for, as JSON."""
        if self.machine.root is None:
            return NOT_BEGUN
        return describe_waits(self.machine, self.work.describe())

    def _let_go(self, status: TaskStatus) -> None:
        wake_at = self.wake_at if status is TaskStatus.SUSPENDED else None
        self.work.leave_notes()
        self._settle(Settled(status, None, wake_at, self.waits(), self.inbox.seen))

    def park(self, why: Exception) -> None:
        """The flow cannot go on here, by its own error or a defect of ours: it waits for a mend."""
        reason = str(why)
        if isinstance(why, ErgonError):
            logger.error("flow %s is parked: %s", self.flow_id, why, extra={"flow_id": self.flow_id})
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
            self.work.given_up.leave_open(for_good=False)
            at = self.host.now() + verdict.delay_seconds
            self.outbox.record(EventKind.FLOW_RETRIED, payload=verdict.failure, at=at, attempt=attempt)
            verdict = backing_off(self.flow, at, self.inbox.seen_but_for_cancels)
        elif verdict.status is TaskStatus.FAILED:
            self.work.given_up.leave_open(for_good=True)
        self.inbox.drop_cancels()
        self._settle(verdict)

    def _settle(self, settled: Settled) -> None:
        """Commit how the flow is left, together with everything that has happened."""
        self.work.drop()
        self.outbox.settled = settled
        self.work.flush()  # with a commit in flight this does nothing; `landed` flushes again

    def _end(self, settled: Settled | None) -> None:
        self.ended = True
        if settled is not None and settled.status.is_terminal:
            self.work.tell_of_taken()
        # The parts forget whom they tell, so that all of the run goes at once and not by the garbage collector.
        self.work.close()
        self.outbox.close()
        self.inbox.close()
        if self._alarm is not None:
            self._alarm.cancel()
        if self.machine.loop.tasks:
            # In a callback of its own: flow code must never run inside a host task, and we may be in one.
            self.host.loop.call_soon(self.machine.dismiss)
        else:
            self.machine.close()
        self._on_end(self, settled)
