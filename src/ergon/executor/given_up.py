"""What becomes of work that a flow stops waiting for: its bodies end, its children are asked to, its signals go back.

All of it lands in the commit that follows from the turn in which the flow stopped waiting. A crash before that leaves
nothing of it, and a replay gives the same work up again; after it, the history tells (`revived`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ergon.core.history import Event, EventKind, split_wait
from ergon.executor.earlier import never_received, over_operations
from ergon.replay.machine import FlowMachine
from ergon.replay.operations import Operation, OperationKind

if TYPE_CHECKING:
    from ergon.executor.work import Work


class GivenUp:
    """Settles what one flow in memory stops waiting for."""

    def __init__(self, work: Work, machine: FlowMachine) -> None:
        self._work = work
        self._machine = machine
        self._is_first_run = True
        self._begun_before: set[str] = set()
        self._over: set[str] = set()

    def revived(self, history: Sequence[Event]) -> None:
        """The flow has been replayed, here for the first time: remember what others may have done for it."""
        self._is_first_run = False
        machine = self._machine
        self._begun_before = {op.id for op in machine.requested or () if op.kind == OperationKind.STEP}
        if machine.abandoned:
            self._over = over_operations(history)

    def abandon(self, op: Operation) -> None:
        """The flow stopped waiting: cancel the body, and ask the child, or those of the body, to cancel."""
        body = self._work.bodies.pop(op.id, None)
        if body is None:
            self._work.starts_anew = self._put_back_unreceived(op, op.left_at) or self._work.starts_anew
        else:
            body.drop()
            body.end_waits()
        if self._is_over(op):
            return
        if op.kind == OperationKind.CHILD:
            if not op.request.detached:
                self._work.children.cancel(op)
        else:
            asked = body.waits.children if body is not None and body.waits is not None else ()
            self._work.children.cancel_those_of_step(op, asked, more=self._ran_before(op))

    def leave_open(self, *, for_good: bool) -> None:
        """The attempt of the flow has failed: note which children are open. `for_good`: their parent has ended.

        What it stopped waiting for in its last turn is given up like anything before; the log does that for a parent
        that ends.
        """
        machine = self._machine
        abandoned = machine.take_abandoned()
        self._leave_signals(abandoned)
        if not for_good:
            for op in abandoned:
                self.abandon(op)
            abandoned = []
        for op in (*machine.pending.values(), *abandoned):
            if self._is_over(op):
                continue
            if op.kind == OperationKind.CHILD:
                follows = for_good and not op.request.detached
                self._work.children.note(op, EventKind.ABANDONED if follows else EventKind.CHILD_OPEN)
            elif for_good:
                body = self._work.bodies.get(op.id)
                if self._ran_before(op) or (
                    body is not None and body.waits is not None and body.waits.children
                ):
                    self._work.children.note(op, EventKind.ABANDONED)

    def _leave_signals(self, abandoned: list[Operation]) -> None:
        """What step bodies have not received yet goes back: another attempt of the flow may not call the step."""
        machine = self._machine
        for body in self._work.bodies.values():
            body.end_waits()
        for op in abandoned:
            self._put_back_unreceived(op, op.left_at)
        if machine.ended_at is not None:
            for op in machine.pending.values():
                self._put_back_unreceived(op, machine.ended_at)

    def _is_over(self, op: Operation) -> bool:
        """True when nothing is left to be cancelled: it has its answer, or was abandoned in an earlier run."""
        return op.announced or op.id in self._over or self._machine.has_answer(op)

    def _ran_before(self, op: Operation) -> bool:
        """True when the step may have run in another process, or in an earlier attempt of the flow."""
        if self._is_first_run:
            return False
        return self._work.turns == 0 or op.id in self._begun_before or self._machine.attempt > 1

    def _put_back_unreceived(self, op: Operation, left_at: int) -> bool:
        """Let signals go back that an earlier run took for a step, too late for it. True when there are some."""
        earlier = self._work.earlier
        unreceived = never_received(earlier.pop(op.id, ()) if earlier else (), left_at)
        for event in unreceived:
            self._work.note_put_back(op, split_wait(event.op)[1], event.seq)
        return bool(unreceived)
