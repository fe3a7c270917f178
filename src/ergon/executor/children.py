"""The children of one flow: created and cancelled with its commits, and what it means that an id is taken.

Every child, with an id of its own choice or not, is created in the same commit as whatever else happened, under the
flow's lease. So a child never exists without the events that led to it, and a flow that has ended or lost its lease
creates none. There is one await, that commit. What a crash leaves behind:

- before it is durable: nothing. The replay asks again.
- after it: the child, or a TAKEN message in this flow's inbox. The replay asks again, and the log finds the child that
  this operation started (nothing happens), or says again that the id is taken.
- after that message was taken from memory, before its event is durable: the message is unread, and is taken again.
- after that: the event. The replay answers the operation with it and asks no more.

A flow that ends in the turn in which it asks for a detached child hears no answer: that the id was taken is then a
warning among the program's log lines.

A child that is cancelled before the answer is known may be a stranger: the log cancels it only if this operation
started it. The cancel shares its commit with an ABANDONED event, so a replay, whose code stops waiting at the same
place, asks once more only when neither has landed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ergon.core.codec import encode
from ergon.core.commit import ChildCancel, FlowRecord, parent_cancelled
from ergon.core.history import EventKind
from ergon.errors import StoreError
from ergon.executor.body_waits import StepWait
from ergon.executor.families import new_child
from ergon.executor.host import Host
from ergon.executor.inbox import Inbox
from ergon.executor.outbox import Outbox
from ergon.replay.machine import FlowMachine
from ergon.replay.operations import Operation, OperationKind
from ergon.storage.log import ExecutionLog

if TYPE_CHECKING:
    from ergon.flows.children import ChildRequest

logger = logging.getLogger("ergon.executor")


class Children:
    """Starts and cancels the children of a flow in memory."""

    __slots__ = (
        "_inbox",
        "_left",
        "_outbox",
        "_parent",
    )

    def __init__(self, parent: FlowRecord, outbox: Outbox, inbox: Inbox) -> None:
        self._parent = parent
        self._outbox = outbox
        self._inbox = inbox
        self._left: tuple[Operation, ...] = ()

    def start(self, op: Operation) -> None:
        """Create the child that the flow asked for."""
        self._outbox.create_child(new_child(self._parent, op.request, op.id))

    def start_for_step(self, request: ChildRequest, operation: str, wait: StepWait) -> None:
        """Create the child that a step body asked for."""
        self._inbox.want_child(operation, wait, request.flow_id)
        if not self._inbox.has_outcome(operation, request.flow_id):  # the log would tell it once more
            self._outbox.create_child(new_child(self._parent, request, operation))

    def cancel(self, op: Operation) -> None:
        """The flow stopped waiting for a child: it is asked to cancel, or never created."""
        if not self._outbox.forget_child(op.id):
            self._cancel(op.request.flow_id, op)

    def cancel_those_of_step(self, op: Operation, asked: Iterable[str], *, more: bool) -> None:
        """The flow stopped waiting for a step, whose body asked for these; `more`: and for others in earlier runs."""
        created = [operation for operation in asked if not self._outbox.forget_child(operation)]
        if created or more:
            self._cancel(None, op)

    def _cancel(self, flow_id: str | None, op: Operation) -> None:
        why = self._inbox.cancel_reason
        told = "its parent stopped waiting" if why is None else parent_cancelled(why)
        asked = op.id if flow_id is not None else op.call_id
        self._outbox.cancel_child(ChildCancel(flow_id, asked, encode(told), self._inbox.attempt))
        self.note(op, EventKind.ABANDONED)

    def note(self, op: Operation, kind: str) -> None:
        """Record what a further attempt of the flow has to know of this operation's children."""
        self._outbox.record(kind, op=op.id, name=op.name, digest=op.digest, source=op.source)

    def leave(self, machine: FlowMachine) -> None:
        """The flow has ended: detached children asked for in its last turn land with it, if their id is free."""
        # Nobody waits for the answer. An id that is derived from the parent's cannot be another flow's.
        self._left = tuple(
            op
            for op in machine.pending.values()
            if op.kind == OperationKind.CHILD and op.request.detached and op.request.id is not None
        )
        for op in machine.take_requested():
            if op.kind == OperationKind.CHILD and op.request.detached:
                self.start(op)

    def tell_of_taken(self, host: Host) -> None:
        """The flow has ended: say in the program's log which of the children that it left were not started."""
        if self._left:
            host.in_background(self._tell_of_taken(host.log, self._left))

    async def _tell_of_taken(self, log: ExecutionLog, left: Sequence[Operation]) -> None:
        for op in left:
            try:
                found = await log.find(op.request.flow_id)
            except StoreError as error:
                logger.warning(
                    "flow %s: could not see whether its detached children started (%s)",
                    self._parent.id,
                    error,
                )
                return
            if found is not None and (found.parent_id, found.parent_op) != (self._parent.id, op.id):
                logger.warning(
                    "flow %s ended with a detached child that was not started: its id %r is taken by another flow, "
                    "`%s`. It asked for %s",
                    self._parent.id,
                    found.id,
                    found.name,
                    op,
                )
