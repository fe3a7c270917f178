"""Drive one flow's machine by hand, and keep the history that this makes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import ergon
from ergon.core.codec import encode
from ergon.core.failure import describe
from ergon.core.history import DELIVERED, Event, EventKind
from ergon.executor.answers import read_answer
from ergon.replay.machine import FlowMachine
from ergon.replay.operations import Operation, OperationKind

STARTED_AT: Final = 1_700_000_000.0
Flow = Callable[[], Coroutine[Any, Any, Any]]


@ergon.step
async def charge(amount: int = 0) -> str:
    raise NotImplementedError  # the rig answers


@ergon.step
async def ship(item: str = "") -> str:
    raise NotImplementedError


@ergon.flow
async def refund(amount: int = 0) -> str:
    raise NotImplementedError


class Rig:
    """A flow that runs by hand. What is announced together is delivered together."""

    def __init__(self, flow: Flow, history: Sequence[Event] = ()) -> None:
        self.rows: list[Event] = list(history)
        self.errors: list[dict[str, Any]] = []
        self._announced: list[Event] = []
        self.machine = FlowMachine(
            flow_id="rig",
            started_at=STARTED_AT,
            history=self.rows,
            entry=flow,
            answer=read_answer,
            on_error=lambda _, context: self.errors.append(context),
        )
        self.machine.revive()

    # -- announcing: the fact is on its way into the log -------------------------------------------------

    def completes(self, name: str, value: str = "done") -> Rig:
        op = self._asked(name)
        kind = EventKind.CHILD_COMPLETED if op.kind == OperationKind.CHILD else EventKind.STEP_COMPLETED
        return self._announce(
            kind, op=op.id, name=name, digest=op.digest, payload=encode(value), source=op.source
        )

    def fails(self, name: str, error: Exception) -> Rig:
        op = self._asked(name)
        kind = EventKind.CHILD_FAILED if op.kind == OperationKind.CHILD else EventKind.STEP_FAILED
        return self._announce(
            kind, op=op.id, name=name, digest=op.digest, payload=describe(error), source=op.source
        )

    def rings(self) -> Rig:
        """The next timer is due."""
        timer = self.machine.loop.next_timer()
        assert timer is not None, "no timer is armed"
        (due, *others) = self.machine.loop.take_due(timer.when())
        assert not others, "several timers are due"
        return self._announce(
            EventKind.TIMER_FIRED, op=due.op, name=due.name, at=due.when(), source=due.source
        )

    def signal(self, name: str, value: str) -> Rig:
        return self._announce(EventKind.SIGNAL_RECEIVED, name=name, payload=encode(value))

    def cancel(self) -> Rig:
        return self._announce(EventKind.CANCEL_REQUESTED, payload=encode("enough"))

    def _asked(self, name: str) -> Operation:
        taken = {event.op for event in self._announced}
        return next(op for op in self.machine.pending.values() if op.name == name and op.id not in taken)

    def _announce(self, kind: str, **columns: Any) -> Rig:
        seq = len(self.rows) + len(self._announced) + 1
        blank = {"op": "", "name": "", "digest": "", "payload": None, "source": "", "attempt": 0}
        at = max(STARTED_AT + seq, self.machine.loop.time())
        event = Event(seq=seq, kind=kind, **{**blank, "at": at, **columns})
        self._announced.append(event)
        self.machine.expect(event)
        return self

    # -- delivering --------------------------------------------------------------------------------------

    def land(self) -> Rig:
        """What was announced is durable: the flow learns it."""
        landed, self._announced = self._announced, []
        self.rows += landed
        for event in landed:
            assert event.kind in DELIVERED
            self.machine.deliver(event)
        return self

    def asked(self) -> list[str]:
        """The names of what the flow waits for, in the order it asked."""
        return [op.name for op in self.machine.pending.values()]

    def ids(self) -> list[str]:
        return [op.id for op in self.machine.pending.values()]

    @property
    def result(self) -> Any:
        """The flow's result; raises its error."""
        assert self.machine.root is not None
        return self.machine.root.result()


def replay(flow: Flow, rig: Rig) -> Rig:
    """Revive a flow from the history another one has made."""
    return Rig(flow, rig.rows)
