"""A flow's messages: kept until wanted, then turned into facts together with their consumption.

A signal is taken only when somebody waits for its name, so that what nobody waits for stays unread in the log, and
a message and the event that accounts for it land in one commit: consumed once, or not at all.

What step bodies wait for is taken when a commit is about to be made, as its last events: nothing in that commit can
follow them and end a body that has not received its signal yet. A signal that its body never receives, because the flow
or the body itself stopped waiting meanwhile, or this attempt of the flow failed, is put back (`put_back`). What a crash
leaves behind:

- before the body's event is durable: the message, unread.
- after it: the answer of an open step, which gets it when it runs again; if events of the same commit ended the step or
  the flow, `never_received` tells so in the next run, and the signal is put back then.
- after the event that it went back: the message, unread.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections import deque
from collections.abc import Sequence
from heapq import merge
from itertools import islice

from ergon.core.codec import encode
from ergon.core.commit import CancelName, IdTaken, MessageKind, Received, read_reason
from ergon.core.empty import NO_ENTRIES
from ergon.core.failure import describe
from ergon.core.history import Event, EventKind
from ergon.core.status import TaskStatus
from ergon.executor.body_waits import StepWait
from ergon.executor.families import (
    ChildEnd,
    asks_for_child,
    event_of,
    id_taken,
    is_what_was_asked_for,
    other_child,
    refusal,
)
from ergon.executor.outbox import Outbox
from ergon.replay.attempts import SEEN_AGAIN
from ergon.replay.cleaning import cleans_up
from ergon.replay.machine import FlowMachine


class Inbox:
    """The messages of one flow in memory."""

    __slots__ = (
        "_child_waits",
        "_machine",
        "_outbox",
        "_signal_waits",
        "_taken",
        "cancels",
        "cancels_under_way",
        "others",
        "seen",
        "signals",
    )

    def __init__(
        self,
        messages: Sequence[Received],
        machine: FlowMachine,
        outbox: Outbox,
        *,
        seen: int = 0,
    ) -> None:
        """`seen`: up to here nothing is missing."""
        self.seen = messages[-1].id if messages else seen
        """The newest message known here; up to it, every message is here or accounted for."""
        # Tuples, as most flows get no message: an empty list for each would be one more thing to collect.
        self.cancels: tuple[Event, ...] = ()
        """How this attempt of the flow was asked to cancel, oldest first."""
        self.cancels_under_way = 0
        """How often it was asked and does not know it yet."""
        self.signals: dict[str, deque[Received]] = NO_ENTRIES
        """By name, the signals that no fact accounts for yet, oldest first: thousands perhaps, wanted by nobody."""
        self.others: tuple[Received, ...] = ()
        """Messages of other kinds that no fact accounts for yet, oldest first."""
        self._machine = machine
        self._outbox = outbox
        self._taken: dict[str, int] = NO_ENTRIES
        self._signal_waits: tuple[tuple[str, StepWait], ...] = ()
        self._child_waits: dict[str, tuple[StepWait, str]] = NO_ENTRIES
        if messages:
            self._keep(messages)

    @property
    def attempt(self) -> int:
        """Which attempt of the flow this is, from 1."""
        return self._machine.attempt

    @property
    def cancel_reason(self) -> str | None:
        """Why the flow was last asked to cancel; None when it was not."""
        return read_reason(self.cancels[-1].payload) if self.cancels else None

    def add(self, messages: list[Received]) -> bool:
        """Keep new messages; known ones are skipped. True when there were new ones."""
        fresh = [message for message in messages if message.id > self.seen]
        if fresh:
            self.seen = fresh[-1].id
            self._keep(fresh)
        return bool(fresh)

    def _keep(self, messages: Sequence[Received]) -> None:
        others = []
        for message in messages:
            if message.kind == MessageKind.SIGNAL:
                self._unread(message.name).append(message)
            else:
                others.append(message)
        self.others = (*self.others, *others)

    def _unread(self, name: str) -> deque[Received]:
        if not self.signals:
            self.signals = {}
        return self.signals.setdefault(name, deque())

    def _read(self, signal: Received) -> None:
        """The oldest of its name is accounted for."""
        unread = self.signals[signal.name]
        oldest = unread.popleft()
        assert oldest is signal, f"signal {signal.id} is not the oldest {signal.name!r}"
        if not unread:
            del self.signals[signal.name]

    def close(self) -> None:
        """Answer no more waits, and forget them."""
        self._signal_waits = ()
        self._child_waits = NO_ENTRIES
        self._outbox.before_flush = None

    def want_signal(self, name: str, wait: StepWait) -> None:
        """A step body waits for a signal."""
        self._signal_waits = (*self._signal_waits, (name, wait))
        self._outbox.before_flush = self._take_for_bodies

    def want_child(self, operation: str, wait: StepWait, flow_id: str) -> None:
        """A step body started a child flow and wants its outcome."""
        if not self._child_waits:
            self._child_waits = {}
        self._child_waits[operation] = wait, flow_id

    def has_outcome(self, operation: str, flow_id: str) -> bool:
        """True when word is here of how this child of an operation ended."""
        return any(
            message.kind == MessageKind.CHILD
            and message.name == operation
            and ChildEnd.read(message.payload).flow_id == flow_id
            for message in self.others
        )

    def outcomes_unasked(self, op: str) -> int:
        """How many children of a step have ended that its body, since it runs again, has not asked for."""
        ours = [
            message
            for message in self.others
            if message.kind == MessageKind.CHILD
            and message.name.startswith(f"{op}/")
            and message.name not in self._child_waits
        ]
        return sum(ChildEnd.read(message.payload).status != TaskStatus.CANCELLED for message in ours)

    def unwant(self, arrived: asyncio.Future[Event]) -> None:
        """The body waits for its signal no more."""
        self._signal_waits = tuple([wait for wait in self._signal_waits if wait[1].arrived is not arrived])
        if not self._signal_waits:
            self._outbox.before_flush = None

    @property
    def seen_but_for_cancels(self) -> int:
        """`seen`, unless the flow has been asked to cancel and does not know: that is as if it had just come."""
        unheard = [message.id - 1 for message in self.others if message.kind == MessageKind.CANCEL]
        return min([self.seen, *unheard])

    def put_back(self, message: Received) -> None:
        """A signal was not received by the body that it was taken for: it is unread again, in its old place."""
        insort(self._unread(message.name), message)

    def wants_signals(self) -> bool:
        """True while the flow itself waits for a signal that is not here."""
        wanted = self._machine.wanted_signals()
        return any(count > self._taken.get(name, 0) for name, count in wanted.items())

    def delivered(self, name: str) -> None:
        """A signal has reached the flow."""
        self._taken[name] -= 1
        if not self._taken[name]:
            del self._taken[name]  # else each turn would look at all names there ever were

    def take(self) -> None:
        """Turn messages that are wanted now into facts; keep the others, oldest first."""
        wanted = self._machine.wanted_signals()
        for name, count in self._taken.items():
            wanted[name] = wanted.get(name, 0) - count
        for again in self._machine.earlier.signals_again(wanted):
            self._take_signal(again.name, again.payload, digest=SEEN_AGAIN)
        # While one from an earlier attempt waits to be repeated, the flow itself wants none: only a body may.
        signals = self._oldest(wanted)
        messages = merge(signals, self.others) if self.others and signals else signals or self.others
        machine = self._machine  # which one of them may stop: the rest is left for mended code
        # What is taken calls nobody back, so no message is added or put back meanwhile.
        kept = [message for message in messages if machine.stopped is not None or not self._take(message)]
        if self.others:
            self.others = tuple([message for message in kept if message.kind != MessageKind.SIGNAL])

    def _oldest(self, wanted: dict[str, int]) -> list[Received]:
        """The signals that are here of those that are wanted: so many of each name. Oldest first."""
        if not self.signals:
            return []
        found: list[Received] = []
        for name, count in wanted.items():
            if count > 0 and name in self.signals:
                found += islice(self.signals[name], count)
        return sorted(found)

    def _take(self, message: Received) -> bool:
        """True when the message is accounted for."""
        if message.kind == MessageKind.SIGNAL:
            self._read(message)
            self._machine.earlier.retraces = False
            self._take_signal(message.name, message.payload, digest="")
        elif (
            message.kind == MessageKind.CHILD
            and "#" in message.name
            and message.name not in self._child_waits
        ):
            return False  # for a step body that has not asked yet: it is running again after a restart
        elif message.kind == MessageKind.CHILD:
            if not self._take_child(message):
                return False
        elif message.kind == MessageKind.TAKEN:
            self._take_taken(message.name, IdTaken.read(message.payload or ""))
        elif message.kind == MessageKind.CANCEL:
            if not self._take_cancel(message):
                return False
        elif message.kind == MessageKind.RETRY_NOW:
            self._outbox.record(EventKind.RETRY_NOW)
        self._outbox.consume(message.id)
        return True

    def _take_for_bodies(self) -> None:
        """What step bodies wait for and the flow itself does not: the last events of a commit."""
        if not self.signals:
            return
        found: list[tuple[Received, StepWait]] = []
        left: list[tuple[str, StepWait]] = []
        counts: dict[str, int] = {}
        for name, wait in self._signal_waits:
            unread, count = self.signals.get(name, ()), counts.get(name, 0)
            if count < len(unread) and not wait.arrived.done():
                counts[name] = count + 1
                found.append((unread[count], wait))
            else:
                left.append((name, wait))
        if not found:
            return
        self._signal_waits = tuple(left)
        for message, wait in sorted(found, key=_of_message):
            self._read(message)
            wait.take(message)
            self._outbox.consume(message.id)

    def _take_signal(self, name: str, payload: str | None, *, digest: str) -> None:
        before = self._taken.get(name, 0)
        if not self._taken:
            self._taken = {}
        self._taken[name] = before + 1
        box = self._machine.mailboxes[name]
        waiter = box.waiters[before] if before < len(box.waiters) else None
        self._outbox.record(
            EventKind.SIGNAL_RECEIVED,
            name=name,
            source=waiter.source if waiter is not None else "",
            payload=payload if payload is not None else "null",
            digest=digest,
        )

    def _take_cancel(self, message: Received) -> bool:
        name = message.name
        if self.cancels_under_way:
            return True  # the one before is heard for both
        if name == CancelName.PARENT_ENDED and self._has_heard(name, CancelName.PARENT):
            return True  # one act upon the parent interrupts its child once
        if name != CancelName.AGAIN and self._cleans_up():
            return False  # that is not broken off; should the flow go on instead of ending, it hears of this
        self._cancel(name, message.payload)
        return True

    def hears_deadline(self, deadline_at: float) -> bool:
        """Whether its deadline can interrupt the flow: not while it cleans up, nor after a cancel since then."""
        if not self.cancels:
            return True
        told = (
            self.cancels_under_way
            or self.cancels[-1].at >= deadline_at
            or self._has_heard(CancelName.DEADLINE)
        )
        return not (told or self._cleans_up())

    def pass_deadline(self, deadline_at: float) -> None:
        """The deadline is over: ask the flow to stop if it hears that."""
        if self.hears_deadline(deadline_at):
            self._cancel(CancelName.DEADLINE, encode("its deadline passed"))

    def drop_cancels(self) -> None:
        """The flow has ended with the first one: those that waited for it to go on have nothing left to ask."""
        for message in self.others:
            if message.kind == MessageKind.CANCEL and self.cancels:
                self._outbox.consume(message.id)

    def _cleans_up(self) -> bool:
        return bool(self.cancels) and cleans_up(self._machine.loop.tasks.values())

    def _has_heard(self, *names: str) -> bool:
        return any(event.name in names for event in self.cancels)

    def _cancel(self, name: str, payload: str | None) -> None:
        """Ask the flow to stop. One that was asked before is asked again: it has gone on."""
        self.cancels_under_way += 1
        self._machine.earlier.retraces = False
        told = self._outbox.record(EventKind.CANCEL_REQUESTED, name=name, payload=payload)
        self.cancels = (*self.cancels, told)

    def _take_child(self, message: Received) -> bool:
        machine = self._machine
        if message.name in self._child_waits:
            self._answer_body(message.name, ChildEnd.read(message.payload))
            return True
        op = machine.pending.get(message.name)
        if op is None:
            # The flow stopped waiting for this child; or it was started by an earlier attempt of the flow, and this
            # one has not come to the place where it asks for it. In the second case nobody else will tell the outcome.
            return machine.attempt == 1
        if machine.has_answer(op):
            return True
        end = ChildEnd.read(message.payload)
        if is_what_was_asked_for(op, end):
            self._outbox.answer_later(op, *event_of(end))
        elif machine.attempt == 1:
            machine.stop(other_child(op, end))
            return False  # code that asks for it again finds it unread
        # Else it is the child of an earlier attempt, which this one does not ask for: it may ask for a step there.
        return True

    def _answer_body(self, operation: str, end: ChildEnd) -> None:
        wait, flow_id = self._child_waits[operation]
        if end.flow_id == flow_id:  # else it is the child of an earlier attempt of the flow
            del self._child_waits[operation]
            wait.answer(end.outcome)

    def _take_taken(self, operation: str, found: IdTaken) -> None:
        """Another flow has the id of a child. When nobody waits for that child, nobody needs to know."""
        if operation in self._child_waits:
            wait, flow_id = self._child_waits[operation]
            # A body that runs again may compute another input: its child is the one it started first.
            if found.input is None and found.flow_id == flow_id:
                del self._child_waits[operation]
                wait.answer(refusal(found))
            return
        op = self._machine.pending.get(operation)
        if op is None or self._machine.has_answer(op) or not asks_for_child(op, found.flow_id):
            return
        if is_what_was_asked_for(op, found):
            return
        if found.input is not None and self._machine.attempt == 1:
            self._machine.stop(other_child(op, found))
        else:
            self._outbox.answer_later(op, EventKind.CHILD_FAILED, describe(id_taken(found)))


def _of_message(found: tuple[Received, StepWait]) -> int:
    return found[0].id
