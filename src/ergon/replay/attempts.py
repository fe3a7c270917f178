"""What earlier attempts of a retried flow came to, which the present one does not do again.

A flow that raised and is tried again starts from its entry, with a history of its own. Each call of a step or child
that it makes is matched with one that an earlier attempt made (decision 0015): first by its place, else, where the
code has changed or takes another way, by its name and arguments. A call keeps its id, that of the operation that made
it first, and with it the idempotency key; where that is not the id of the operation, it stands behind the digest, so
that a replay and a further attempt find it: `0x1c291ca3@0:2`.

Signals they received are received again. A sleep is over at once only while the attempt `retraces` the one before
(decision 0016). A child that is still open is found again by an attempt that asks for the same. One that failed, was
asked to cancel, or is another than the present attempt asks for, gets a successor, which needs another flow id. All of
this is decided by the history, so that a replay of the present attempt comes to the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from ergon.core.history import Event, EventKind, split_wait
from ergon.replay.loop import FlowTimer
from ergon.replay.operations import EXPECTED_KIND, Operation, OperationKind

SEEN_AGAIN: Final = "again"
"""Digest of a signal's event that repeats one from an earlier attempt of the flow."""

_COMPLETED: Final = frozenset({EventKind.STEP_COMPLETED, EventKind.CHILD_COMPLETED})
_OF_STEPS: Final = frozenset(
    {EventKind.STEP_STARTED, EventKind.STEP_WAITED, EventKind.STEP_RETRIED, EventKind.STEP_FAILED}
)
_RETRIES: Final = frozenset({EventKind.FLOW_RETRIED, EventKind.RETRY_NOW})


_OF_CHILDREN: Final = frozenset(
    {EventKind.CHILD_COMPLETED, EventKind.CHILD_FAILED, EventKind.CHILD_OPEN, EventKind.ABANDONED}
)
_SPENT: Final = frozenset({EventKind.CHILD_FAILED, EventKind.ABANDONED})
"""After these another attempt gets another child."""


class _Child(NamedTuple):
    """The last child that an operation had in earlier attempts."""

    number: int
    name: str
    digest: str
    is_spent: bool


class EarlierCall:
    """A step or child that earlier attempts of the flow called."""

    __slots__ = ("answer", "digest", "events", "id", "kind", "name", "place", "started", "taken")

    def __init__(self, id: str, kind: str, name: str, digest: str) -> None:
        self.id = id
        self.kind = kind
        self.name = name
        self.digest = digest
        self.place = id
        """The operation it was in the latest attempt that made it."""
        self.answer: Event | None = None
        """How it completed; None: it is open, or failed."""
        self.events: list[Event] = []
        """What a body has to know that goes on with it: at-most-once starts, their failures, answered waits."""
        self.started = False
        """It is an at-most-once step: every start of it is recorded."""
        self.taken = False
        """The present attempt has made it."""

    def is_call_of(self, op: Operation) -> bool:
        """Whether the operation asks for the same."""
        return self.name == op.name and self.digest == op.digest and self.kind == op.kind


class EarlierAttempts:
    """The attempts of a flow before the present one."""

    __slots__ = (
        "_calls",
        "_children",
        "_displaced",
        "_places",
        "_same",
        "_sleeps",
        "abandoned",
        "count",
        "made",
        "present_began",
        "retraces",
        "signals",
    )

    def __init__(self) -> None:
        self.count = 0
        self.present_began: float | None = None
        """By the log's clock, where the history tells: when it was tried again, or told not to wait any longer."""
        self.made: dict[str, EarlierCall] = {}
        """By operation id: the calls of the present attempt that an earlier one has made."""
        self.signals: dict[str, deque[Event]] = {}
        """By name, those that the present attempt has not received again yet; taken from the left."""
        self.abandoned: dict[str, int] = {}
        """In how many attempts the flow stopped waiting for a call: the children of a step are others then."""
        self.retraces = False
        """The present attempt has done nothing yet but what an earlier one did, to its end."""
        self._calls: dict[str, EarlierCall] = {}
        self._places: dict[str, EarlierCall] = {}
        self._same: dict[tuple[str, str], list[EarlierCall]] = {}
        self._displaced: set[str] = set()
        self._sleeps: dict[str, Event] = {}
        self._children: dict[str, _Child] = {}

    # -- learned from the history ----------------------------------------------------------------------

    def split_off(self, history: Sequence[Event]) -> Sequence[Event]:
        """Learn what earlier attempts came to; returns the events of the present one."""
        start, began = 0, None
        for index, event in enumerate(history):
            if event.kind == EventKind.FLOW_RETRIED:
                start = index + 1
                self.count += 1
                began = event.at
            elif event.kind == EventKind.RETRY_NOW and start == index:
                began = event.at  # it did not wait
        self.present_began = began
        for event in history[:start]:
            self._learn(event)
        for event in history[start:] if self.signals else ():
            if event.kind == EventKind.SIGNAL_RECEIVED and event.digest == SEEN_AGAIN:
                self.signals[event.name].popleft()
        for call in self._calls.values():
            self._same.setdefault((call.name, call.digest), []).append(call)
        self.retraces = self.count > 0 and all(event.kind in _RETRIES for event in history[start:])
        return history[start:]

    def _learn(self, event: Event) -> None:
        kind = event.kind
        if kind in _OF_CHILDREN:
            self._learn_of_child(event)
        if kind in _COMPLETED:
            call = self._call_of(event, event.op)
            call.answer = event
            call.events.clear()
        elif kind in _OF_STEPS:
            op, wait = split_wait(event.op)
            call = self._call_of(event, op)
            call.started = call.started or kind == EventKind.STEP_STARTED
            if wait:  # of no attempt of the step that this attempt of the flow counts
                call.events.append(event._replace(attempt=0))
            elif call.started and kind != EventKind.STEP_RETRIED:
                call.events.append(event)  # the failures of other steps count for nothing
        elif kind == EventKind.SIGNAL_RETURNED:
            kept = self._call_of(event, split_wait(event.op)[0]).events
            for each in [each for each in kept if each.op == event.op][-1:]:
                kept.remove(each)
        elif kind == EventKind.SIGNAL_RECEIVED and event.digest != SEEN_AGAIN:
            self.signals.setdefault(event.name, deque()).append(event)
        elif kind == EventKind.TIMER_FIRED and event.digest:
            self._sleeps[event.op] = event

    def _learn_of_child(self, event: Event) -> None:
        digest, _, id = event.digest.partition("@")
        number = self.child_number(event.op, event.name, digest)
        self._children[event.op] = _Child(number, event.name, digest, event.kind in _SPENT)
        if event.kind == EventKind.ABANDONED:
            call = id or event.op
            self.abandoned[call] = self.abandoned.get(call, 0) + 1

    def _call_of(self, event: Event, op: str) -> EarlierCall:
        digest, _, known = event.digest.partition("@")
        id = known or op
        kind = EXPECTED_KIND.get(event.kind, OperationKind.STEP)
        call = self._calls.get(id)
        if call is None or (call.kind, call.name, call.digest) != (kind, event.name, digest):
            call = self._calls[id] = EarlierCall(id, kind, event.name, digest)
        elif call.place != op and self._places.get(call.place) is call:
            del self._places[call.place]
        call.place = op
        self._places[op] = call
        return call

    # -- asked by the present attempt ------------------------------------------------------------------

    def recognise(self, op: Operation) -> None:
        """Match a call of the present attempt with one that was made before, or give it an id that none had.

        Replays ask in the same order, and so come to the same.
        """
        here = self._places.get(op.id)
        if here is not None and not here.taken and here.is_call_of(op):
            call: EarlierCall | None = here
        else:
            if here is not None:
                self._displaced.add(op.id)
            call = self._moved(op, displaced=here is not None)
        if call is not None:
            call.taken = True
            self.made[op.id] = call
        id = call.id if call is not None else self._new_id(op)
        if id != op.id:
            op.digest = f"{op.digest}@{id}"

    def _moved(self, op: Operation, *, displaced: bool) -> EarlierCall | None:
        """The same call at another place, where there is reason to think that it is not asked for there again.

        There is when something else stood at this place, or something else is asked for at that place. At-most-once
        steps need no reason: all of their starts are known, so that of several alike each answers one.
        """
        path = op.id.rpartition(":")[0]
        found = None
        for call in self._same.get((op.name, op.digest), ()):
            if call.taken or call.kind != op.kind:
                continue
            gone = call.place in self._displaced or self._places.get(call.place) is not call
            if displaced or gone or call.started:
                if call.place.rpartition(":")[0] == path:
                    return call
                if found is None and op.kind == OperationKind.STEP:
                    found = call
        return found

    def _new_id(self, op: Operation) -> str:
        """An id for a call that no earlier attempt made: the operation's, unless another call has that."""
        if op.id not in self._calls:
            return op.id
        id = own = f"{op.id}~{op.name}~{op.digest}"
        number = 1
        while id in self._calls:
            number += 1
            id = f"{own}~{number}"
        return id

    def child_number(self, op: str, name: str, digest: str) -> int:
        """Which of an operation's children it is that the present attempt asks for, from 0."""
        last = self._children.get(op) if self._children else None
        if last is None:
            return 0
        is_last = not last.is_spent and (last.name, last.digest) == (name, digest)
        return last.number if is_last else last.number + 1

    def slept(self, timer: FlowTimer) -> bool:
        """Whether an earlier attempt slept this very sleep to its end, and the present one only follows it there."""
        if not self.retraces:
            return False
        event = self._sleeps.get(timer.op)
        return event is not None and event.name == timer.name and event.digest == timer.digest

    def signals_again(self, wanted: dict[str, int]) -> list[Event]:
        """Of the signals that earlier attempts received those that are wanted now, which it takes off `wanted`."""
        repeated: list[Event] = []
        for name, again in self.signals.items():
            while again and wanted.get(name, 0) > 0:
                wanted[name] -= 1
                repeated.append(again.popleft())
        return repeated


NO_ATTEMPTS: Final = EarlierAttempts()
"""Before every flow that has no history: nothing is ever added to it."""
