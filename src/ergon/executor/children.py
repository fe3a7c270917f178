"""The children of one flow: created with its commits, or by id with a question first, and cancelled with it.

A child without an id of its own is created in the same commit as whatever else happened; asking twice for the same
one changes nothing. An id that the flow chose may be taken by a stranger, so the log is asked first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from ergon.core.codec import encode
from ergon.core.commit import FlowRecord, Message, MessageKind, NewFlow
from ergon.core.failure import describe
from ergon.core.history import EventKind
from ergon.errors import FlowIdConflict, LogBusy, LogFull
from ergon.executor.families import new_child, outcome_of_record
from ergon.executor.host import Host
from ergon.executor.inbox import Inbox, StepWait
from ergon.executor.outbox import RESUBMIT_SECONDS, Outbox
from ergon.replay.machine import FlowMachine
from ergon.replay.operations import Operation

if TYPE_CHECKING:
    from ergon.flows.children import ChildRequest

logger = logging.getLogger("ergon.executor")


class Children:
    """Starts and cancels the children of a flow in memory."""

    def __init__(
        self,
        parent: FlowRecord,
        host: Host,
        machine: FlowMachine,
        outbox: Outbox,
        inbox: Inbox,
        *,
        on_created: Callable[[], None],
    ) -> None:
        """`on_created` is called when a question to the log has its answer."""
        self._parent = parent
        self._host = host
        self._machine = machine
        self._outbox = outbox
        self._inbox = inbox
        self._on_created = on_created
        self._asking: set[asyncio.Task[None]] = set()
        self._creating: set[str] = set()
        self._unwanted: set[str] = set()
        """Children that were to be cancelled while they were being created."""

    @property
    def busy(self) -> bool:
        """True while the log is asked whether an id is free."""
        return bool(self._asking)

    def start(self, op: Operation) -> None:
        """Create the child that the flow asked for."""
        child = new_child(self._parent, op.request, op.id)
        if op.request.id is None:
            self._outbox.children.append(child)
        else:
            self._ask(self._create_for_flow(op, child))

    def start_for_step(self, request: ChildRequest, operation: str, wait: StepWait) -> None:
        """Create the child that a step body asked for."""
        self._inbox.want_child(operation, wait)
        child = new_child(self._parent, request, operation)
        if request.id is None:
            self._outbox.children.append(child)
        else:
            self._ask(self._create_for_step(child, wait))

    def cancel(self, flow_id: str) -> None:
        """The parent stopped waiting for a child: it is asked to cancel, or never created."""
        if flow_id in self._creating:
            # The message below may come before the child is there: it is sent again then.
            self._unwanted.add(flow_id)
        if not self._outbox.forget_child(flow_id):
            reason = encode("its parent stopped waiting")
            self._outbox.tell(Message(flow_id, MessageKind.CANCEL, "", reason, "parent"))

    def close(self) -> None:
        """Ask no more, and tell nobody."""
        self._on_created = _tell_nobody
        for task in self._asking:
            task.cancel()

    def _ask(self, question: Coroutine[Any, Any, None]) -> None:
        task = self._host.loop.create_task(question)
        self._asking.add(task)
        task.add_done_callback(self._asked)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("flow %s could not start a child", self._parent.id, exc_info=error)
        self._on_created()

    async def _create_for_flow(self, op: Operation, child: NewFlow) -> None:
        existing = await self._create(child)
        if existing is None or op.id not in self._machine.pending or self._outbox.is_sealed:
            return
        if _is_another(existing, child):
            self._outbox.answer_later(op, EventKind.CHILD_FAILED, describe(_taken(child)))
        elif existing.status.is_terminal and op.id in self._machine.failed_children:
            # It failed in an earlier attempt of this flow, and sends no second message.
            self._outbox.answer_later(op, *outcome_of_record(existing))
        self._outbox.flush()

    async def _create_for_step(self, child: NewFlow, wait: StepWait) -> None:
        existing = await self._create(child)
        if existing is not None and _is_another(existing, child) and not wait.arrived.done():
            wait.body.answered(wait.arrived)
            wait.arrived.set_exception(_taken(child))

    async def _create(self, child: NewFlow) -> FlowRecord | None:
        self._creating.add(child.id)
        try:
            existing = await self._create_at_last(child)
        finally:
            self._creating.discard(child.id)
        if child.id in self._unwanted:
            self._unwanted.discard(child.id)
            if (existing is None or not _is_another(existing, child)) and not self._outbox.is_sealed:
                self.cancel(child.id)
                self._outbox.flush()
        return existing

    async def _create_at_last(self, child: NewFlow) -> FlowRecord | None:
        while True:
            try:
                return await self._host.log.create(child)
            except (LogFull, LogBusy) as error:
                logger.warning("flow %s cannot start child %s yet: %s", self._parent.id, child.id, error)
                await asyncio.sleep(RESUBMIT_SECONDS)


def _tell_nobody() -> None:
    """In place of a run that has ended."""


def _is_another(existing: FlowRecord, child: NewFlow) -> bool:
    return (existing.parent_id, existing.parent_op) != (child.parent_id, child.parent_op)


def _taken(child: NewFlow) -> FlowIdConflict:
    return FlowIdConflict(f"child id {child.id!r} is taken by another flow; choose another id")
