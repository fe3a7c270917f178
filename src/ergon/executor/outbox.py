"""What has happened to a flow and is on its way into the log.

A flow has one commit in flight at most; what happens meanwhile gathers here and shares the next one. A commit that
meets a full disk or a busy log is submitted again as it is; one that meets a lost lease ends the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from ergon.core.commit import ChildCancel, Commit, Lease, NewFlow, Settled, make_commit
from ergon.core.history import DELIVERED, Event, make_event
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost, LogBusy, LogClosed, LogFull
from ergon.executor.host import Host
from ergon.executor.parts import NOBODY, Run
from ergon.replay.machine import NOT_DECODED, FlowMachine
from ergon.replay.operations import Operation, place_text

logger = logging.getLogger("ergon.executor")

RESUBMIT_SECONDS: Final = 0.5
"""How long a commit that met a full disk or a busy log waits before it is tried again."""

HOLD_SECONDS: Final = 0.005
"""How long a result waits for others of the same flow while the event loop is busy with their steps. A log's writer
could do little sooner: one on a connection waits for the event loop, one in a thread for the interpreter, which hands
itself over after this time (`sys.getswitchinterval`)."""

Fact = tuple[Event, Any, Callable[[], None] | None]
"""An event on its way into the log, its value where it is at hand, and what follows once it is durable."""


class _Besides:
    """What the next commit takes along beside its events. Few have any."""

    __slots__ = ("cancels", "children", "consumed", "returned")

    def __init__(self) -> None:
        self.consumed: list[tuple[int, int]] = []
        self.returned: list[int] = []
        self.cancels: list[ChildCancel] = []
        self.children: list[NewFlow] = []


class Outbox:
    """Facts in, commits out."""

    __slots__ = (
        "_besides",
        "_flow_id",
        "_host",
        "_in_flight",
        "_lease",
        "_machine",
        "_now",
        "_on_done",
        "_refusals",
        "_run",
        "_sent",
        "_seq",
        "_submit",
        "_value",
        "before_flush",
        "closed",
        "facts",
        "settled",
    )

    def __init__(
        self, flow_id: str, lease: Lease, host: Host, machine: FlowMachine, run: Run, *, last_seq: int
    ) -> None:
        """`machine` hears of each event the flow will see, before it is durable; `run` of each commit, after."""
        self.before_flush: Callable[[], None] | None = None
        """Called when a commit is about to be made, to add its last events."""
        self.settled: Settled | None = None
        """How the flow is to be left; nothing is recorded after it is set."""
        self.closed = False
        self._flow_id = flow_id
        self._lease = lease
        self._host = host
        self._refusals = host.refusals
        self._now = host.now
        self._submit = host.submit
        self._seq = last_seq
        self._machine = machine
        self._run = run
        # Made once, as it is handed over with each commit; `close` breaks the cycle.
        self._on_done: Callable[[BaseException | None], None] = self._done
        self.facts: list[Fact] | None = None
        """What has happened and is not submitted yet. None, as empty lists would be things to collect in each flow."""
        self._besides: _Besides | None = None
        self._in_flight: Commit | None = None
        self._sent: list[Fact] | None = None
        """What the commit in flight holds; None: one step's result, and `_value` is what the flow will see."""
        self._value: Any = None

    @property
    def is_empty(self) -> bool:
        """True when nothing is on its way."""
        return self._in_flight is None and not self.has_more

    @property
    def has_more(self) -> bool:
        """True when something waits for a commit. Consumed messages by themselves do not: see `flush`."""
        besides = self._besides
        return bool(self.facts or (besides is not None and (besides.children or besides.cancels)))

    def answer(
        self, op: Operation, kind: str, payload: str | None, attempt: int, value: Any, *, more: bool = False
    ) -> bool:
        """Add the event that answers an operation, and submit it unless a commit is in flight.

        `more`: others may follow at once and share its commit. True: it is held back for them until the next `flush`.
        """
        self._seq = seq = self._seq + 1
        event = make_event(
            (seq, kind, op.id, op.name, op.digest, payload, self._now(), place_text(op.place), attempt)
        )
        op.announced = True
        if self._in_flight is not None:
            self._add((event, value, None))
        elif more and (not self.facts or event.at - self.facts[0][0].at < HOLD_SECONDS):
            self._add((event, value, None))
            return True
        elif self.facts or self._besides is not None:
            self._add((event, value, None))
            self.flush()
        else:
            commit = make_commit((self._flow_id, self._lease, (event,), (), (), (), None, ()))
            self._in_flight, self._sent, self._value = commit, None, value
            self._submit(commit, self._on_done)
        return False

    def _add(self, fact: Fact) -> None:
        if self.facts:
            self.facts.append(fact)
        else:
            self.facts = [fact]

    @property
    def is_sealed(self) -> bool:
        """True when nothing more can be recorded: the flow is let go, or lost."""
        return self.closed or self.settled is not None

    def answer_later(self, op: Operation, kind: str, payload: str | None) -> None:
        """Add the event that answers an operation, to be decoded when it is delivered."""
        self.record(kind, op=op.id, name=op.name, digest=op.digest, payload=payload, source=op.source)

    def record(
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
    ) -> Event:
        """Add an event with the next number, and return it. It is submitted by the next `flush`."""
        self._seq = seq = self._seq + 1
        event = Event(
            seq, kind, op, name, digest, payload, self._now() if at is None else at, source, attempt
        )
        self._add((event, value, after))
        if op and kind in DELIVERED and not self.closed:
            self._machine.expect(event)
        return event

    def close(self) -> None:
        """Submit nothing more, and tell nobody of what is in flight."""
        self.closed = True
        self._in_flight = self._value = None
        self.before_flush = None
        self._run, self._on_done = NOBODY, _tell_nobody

    def consume(self, message_id: int) -> None:
        """The fact recorded last accounts for this message of the inbox."""
        self._beside().consumed.append((message_id, self._seq))

    def unconsume(self, seq: int) -> None:
        """An earlier fact accounts for its message no more, as the facts say."""
        self._beside().returned.append(seq)

    def cancel_child(self, cancel: ChildCancel) -> None:
        """Ask a child to cancel."""
        self._beside().cancels.append(cancel)

    def create_child(self, child: NewFlow) -> None:
        """Start a child."""
        self._beside().children.append(child)

    def forget_child(self, operation: str) -> bool:
        """Do not create this operation's child after all. False when it has been submitted already."""
        besides = self._besides
        if besides is None:
            return False
        before = len(besides.children)
        besides.children = [child for child in besides.children if child.parent_op != operation]
        return len(besides.children) < before

    def _beside(self) -> _Besides:
        if self._besides is None:
            self._besides = _Besides()
        return self._besides

    def flush(self) -> None:
        """Submit what has happened, unless a commit is in flight: then it shares the next one."""
        if self._in_flight is not None or self.closed:
            return
        settled = self.settled
        if self.before_flush is not None and settled is None:
            self.before_flush()
        # A message that nobody waits for any more takes no event along. Its consumption waits for the next commit: by
        # itself it could not be told from one that landed before, if its answer was lost. In a crash it is done again.
        if not (self.has_more or settled):
            return
        facts, self.facts = self.facts or [], None
        events = (facts[0][0],) if len(facts) == 1 else tuple([fact[0] for fact in facts])
        besides, self._besides = self._besides, None
        if besides is not None:
            commit = Commit(
                self._flow_id,
                self._lease,
                events,
                tuple(besides.consumed),
                tuple(besides.cancels),
                tuple(besides.children),
                settled,
                tuple(besides.returned),
            )
        else:
            commit = Commit(self._flow_id, self._lease, events, settled=settled)
        self._in_flight, self._sent = commit, facts
        self._submit(commit, self._on_done)

    def _done(self, error: BaseException | None) -> None:
        commit = self._in_flight
        if commit is None:
            return
        if error is None:
            self._in_flight = None
            if self._refusals.any:
                self._refusals.over()
            if self._sent is None:
                self._run.answered(commit.events[0], self._value)
            else:
                self._run.landed(self._sent, commit.settled)
        elif isinstance(error, LeaseLost):
            self._run.lose(error.why, error.status)
        elif isinstance(error, LogFull | LogBusy):
            self._refusals.met(error, RESUBMIT_SECONDS)
            self._host.loop.call_later(RESUBMIT_SECONDS, self._resubmit, commit)
        elif isinstance(error, LogClosed) or (commit.settled is not None and not commit.events):
            logger.error("flow %s: its commit failed", self._flow_id, exc_info=error)
            self._run.lose(f"its commit failed: {error}", "")
        else:
            # The log works but does not take this: without the flow's events it takes at least word of that.
            logger.error("flow %s: its commit failed; it is parked", self._flow_id, exc_info=error)
            reason = f"the log refused what it did: {error}"
            parked = Commit(self._flow_id, self._lease, settled=Settled(TaskStatus.PARKED, reason=reason))
            self._in_flight, self._sent = parked, []
            self._resubmit(parked)

    def _resubmit(self, commit: Commit) -> None:
        if not self.closed:
            self._submit(commit, self._on_done)


def _tell_nobody(*_: object) -> None:
    """In place of a listener that has gone."""
