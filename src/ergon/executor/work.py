"""What one flow in memory has under way: the bodies of its open steps, and whether they do anything but wait.

`FlowRun` says when something may begin; here it begins and reports. A report becomes a fact in the outbox. While every
body only waits, and nothing is on its way to the log, the flow may leave memory. What the flow stops waiting for is
settled in `given_up.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ergon.core.commit import FlowRecord, Received
from ergon.core.empty import NO_ENTRIES
from ergon.core.failure import awaitable, describe
from ergon.core.history import Event, EventKind, wait_of
from ergon.errors import NonDeterminismError, StoreError
from ergon.executor.body import StepBody
from ergon.executor.body_waits import StepWait
from ergon.executor.children import Children
from ergon.executor.given_up import GivenUp
from ergon.executor.host import Host
from ergon.executor.idleness import Look
from ergon.executor.inbox import Inbox
from ergon.executor.outbox import Outbox
from ergon.executor.parts import NOBODY, Run
from ergon.replay.machine import FlowMachine
from ergon.replay.mismatch import begun_otherwise
from ergon.replay.operations import Operation, OperationKind

if TYPE_CHECKING:
    from ergon.flows.children import ChildRequest

OTHER_CHILDREN_MAX: Final = 3
"""A step that asks for yet another child each time its body runs would start them without end. Tasks of a body that
come to their children in another order leave one or two that are asked for later."""


SURE_SECONDS: Final = 0.25
"""An answer of the log that took longer may be no longer true."""
ASK_AGAIN_SECONDS: Final = 0.5
"""After the log could not answer."""


class Work:
    """Begins what the flow asked for, and takes the reports of step bodies."""

    __slots__ = (
        "_children",
        "_given_up",
        "_holds",
        "_inbox",
        "_machine",
        "_outbox",
        "_run",
        "bodies",
        "closed",
        "earlier",
        "flow_id",
        "host",
        "idle_since",
        "record",
        "starts_anew",
        "turns",
    )

    def __init__(  # noqa: PLR0917
        self,
        record: FlowRecord,
        host: Host,
        machine: FlowMachine,
        outbox: Outbox,
        inbox: Inbox,
        run: Run,
    ) -> None:
        self.flow_id = record.id
        self.record = record
        self.host = host
        self.bodies: dict[str, StepBody] = {}
        """By operation id: the steps that have no result yet."""
        self.turns = 0
        """How often something was delivered to the flow: while it stays the same, no flow code has run."""
        self.idle_since: float | None = None
        """When the flow began to only wait, by the host loop's clock; None while it does more."""
        self.closed = False
        self._holds = False
        """Results wait in the outbox for those of other bodies that run before the event loop goes on."""
        self._given_up: GivenUp | None = None
        self.starts_anew = False
        """A message went back that is not in memory: the flow has to be claimed anew, with its messages."""
        self.earlier: dict[str, list[Event]] = NO_ENTRIES
        """By operation id: what earlier runs of the flow recorded about steps that are still open."""
        self._machine = machine
        self._outbox = outbox
        self._inbox = inbox
        self._children: Children | None = None
        self._run = run

    # -- what the flow asks for --------------------------------------------------------------------------

    def begin_steps(self) -> bool:
        """Begin what the flow asked for in a usual turn: steps, and nothing else happened. False: it is not one."""
        machine, host, inbox = self._machine, self.host, self._inbox
        requested = machine.requested
        if not requested or host.draining or self.earlier or machine.attempt > 1:
            return False
        if inbox.signals or inbox.others or inbox.cancels:
            return False
        machine.requested = None
        self.begin_all(requested)
        outbox = self._outbox
        if outbox.has_more:
            outbox.flush()
        return True

    def begin_all(self, requested: list[Operation]) -> None:
        """Begin what the flow asked for and still wants."""
        usual = not self.earlier and self._machine.attempt == 1
        bodies, runner = self.bodies, self.host.runner
        for op in requested:
            if usual and op.kind == OperationKind.STEP and op.request.step.is_plain:
                bodies[op.id] = body = StepBody()
                body.work, body.op, body.request = self, op, op.request
                runner.start(body)
            else:
                self._begin(op)

    def _begin(self, op: Operation) -> None:
        """Begin what the flow asked for, unless its answer is known."""
        machine = self._machine
        if machine.has_answer(op) or machine.stopped is not None:
            return  # from a message that came while the flow was not here; or an open step is not what it was
        recorded = self.earlier.pop(op.id, ()) if self.earlier else ()
        for event in recorded:
            if (event.name, event.digest) != (op.name, op.digest):
                machine.stop(begun_otherwise(op, event))
                return
        call = machine.earlier.made.get(op.id) if machine.attempt > 1 else None
        if call is not None and call.answer is not None:
            self._outbox.answer_later(op, call.answer.kind, call.answer.payload)
            return
        machine.earlier.retraces = False
        if op.kind == OperationKind.STEP:
            self.bodies[op.id] = body = StepBody()
            body.work, body.op, body.request = self, op, op.request
            body.start([*call.events, *recorded] if call is not None else recorded)
        else:
            assert op.kind == OperationKind.CHILD, op.kind
            self.children.start(op)

    @property
    def given_up(self) -> GivenUp:
        """Who settles what the flow stops waiting for. Most flows need none."""
        if self._given_up is None:
            self._given_up = GivenUp(self, self._machine)
        return self._given_up

    @property
    def children(self) -> Children:
        """Who starts and cancels its children. Most flows need none."""
        if self._children is None:
            self._children = Children(self.record, self._outbox, self._inbox)
        return self._children

    def tell_of_taken(self) -> None:
        """The flow has ended: say in the program's log which children it left that were not started."""
        if self._children is not None:
            self._children.tell_of_taken(self.host)

    def drop(self) -> None:
        """The flow is let go: cancel the bodies. Their steps stay open."""
        for body in self.bodies.values():
            body.drop()

    def close(self) -> None:
        """The flow has left memory: drop the bodies, and tell nobody of them."""
        self.closed = True
        self.drop()
        self.bodies.clear()
        self._given_up = None
        self._run = NOBODY

    # -- what step bodies report -------------------------------------------------------------------------

    def completed(self, body: StepBody, payload: str, value: Any) -> None:
        """A body returned; `value` is what the flow will see."""
        outbox = self._outbox
        if not body.dropped and outbox.settled is None:
            op = body.op
            del self.bodies[op.id]
            self.idle_since = None
            if body.waits is not None:
                body.waits.end()
            # The results of a `gather` of short steps share a commit, instead of one going ahead alone.
            more = bool(self.bodies) and self.host.runner.goes_on
            held = outbox.answer(op, EventKind.STEP_COMPLETED, payload, body.attempt, value, more=more)
            if held and not self._holds:
                self._holds = True
                self.host.runner.afterwards(self._let_go)

    def _let_go(self) -> None:
        self._holds = False
        try:
            self._outbox.flush()
        except Exception as defect:  # noqa: BLE001 - a defect of ours: the results must not stay here
            self.broken(defect)

    def failed(self, body: StepBody, error: Exception) -> None:
        """A body failed for good; the flow sees the error as it reads from the log."""
        if not body.dropped and self._outbox.settled is None:
            del self.bodies[body.op.id]
            if body.waits is not None:
                body.waits.end()
            self.note(EventKind.STEP_FAILED, body.op, body.attempt, payload=describe(awaitable(error)))

    def broken(self, defect: Exception) -> None:
        """What a body came to could not be taken in: the flow waits for a mend, and nothing is lost."""
        if not self.closed and self._outbox.settled is None:
            self._run.park(defect)

    def interrupt(self) -> None:
        """A body was asked to end the process."""
        self._run.interrupt()

    def advance(self) -> None:
        """A body has done something that the flow is to take in."""
        self._run.advance()

    def note(
        self,
        kind: str,
        op: Operation,
        attempt: int,
        *,
        wait: str = "",
        payload: str | None = None,
        at: float | None = None,
        after: Callable[[], None] | None = None,
        flush: bool = True,
    ) -> int:
        """Note something about a step, or a wait inside it; `after` is called when it is durable.

        Returns its number; 0 once all is sealed.
        """
        seq = 0
        if not self.closed and self._outbox.settled is None:
            seq = self._outbox.record(
                kind,
                op=wait_of(op.id, wait) if wait else op.id,
                name=op.name,
                digest=op.digest,
                payload=payload,
                source=op.source,
                attempt=attempt,
                at=at,
                after=after,
            ).seq
            if flush:
                self.flush()
        return seq

    def flush(self) -> None:
        """Something has happened: submit it, unless a commit is in flight."""
        self.idle_since = None
        self._outbox.flush()

    def want_signal(self, name: str, wait: StepWait) -> None:
        """A body waits for a signal."""
        self._inbox.want_signal(name, wait)
        self._run.advance()

    def unwant(self, arrived: asyncio.Future[Event]) -> None:
        """The body waits for its signal no more."""
        self._inbox.unwant(arrived)

    def put_back(self, op: Operation, key: str, seq: int, message: Received) -> bool:
        """A body never received the signal that event `seq` was to bring it. False: the step is let go as it is."""
        if self.closed or self._outbox.settled is not None:
            return False
        self.note_put_back(op, key, seq)
        self._inbox.put_back(message)
        return True

    def return_to_log(self, op: Operation, key: str, seq: int) -> None:
        """A body, perhaps, never received the signal that an earlier run took for it: it is to be read once more.

        It is not in memory. The flow is claimed anew with its messages when no other body runs.
        """
        if not self.closed and self._outbox.settled is None:
            self.note_put_back(op, key, seq)
            self.starts_anew = True

    def note_put_back(self, op: Operation, key: str, seq: int) -> None:
        """Record that the signal of event `seq` is unread again."""
        self.note(EventKind.SIGNAL_RETURNED, op, 0, wait=key, flush=False)
        self._outbox.unconsume(seq)

    async def surely_ours(self) -> None:
        """Return once the log has said, a moment ago, that the flow is still this run's; never when it is not.

        Whoever took it while this event loop stood still has asked `verify`, and begins the step himself.
        """
        record, loop = self.record, self.host.loop
        while True:
            asked_at = loop.time()
            try:
                lost = await self.host.log.lost(record.owner or "", [(record.id, record.epoch)])
            except StoreError:
                await asyncio.sleep(ASK_AGAIN_SECONDS)
                continue
            if lost:
                self._run.taken_away(lost[0][1])
                await loop.create_future()  # until the body is dropped with the run
            if loop.time() - asked_at < SURE_SECONDS:
                return

    def start_child(self, request: ChildRequest, operation: str, wait: StepWait) -> None:
        """A body starts a child flow."""
        self.children.start_for_step(request, operation, wait)
        self._run.advance()

    def abandoned_before(self, op: Operation) -> int:
        """In how many earlier attempts of the flow it stopped waiting for this step."""
        return self._machine.earlier.abandoned.get(op.call_id, 0)

    def retry_now(self) -> None:
        """Steps that back off wait no longer."""
        for body in self.bodies.values():
            body.retry_now()

    # -- idle --------------------------------------------------------------------------------------------

    def not_idle(self) -> None:
        """A body computes again."""
        self.idle_since = None

    def may_be_idle(self) -> None:
        """Notice that the flow can only wait, or that it no longer does."""
        if not self.can_only_wait():
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = self.host.loop.time()
            self._run.went_idle()

    def can_only_wait(self) -> bool:
        """True when every body waits, nothing is on its way to the log, and nothing is about to start."""
        for body in self.bodies.values():
            if (waits := body.waits) is None or not waits.idle:
                return False
        if self._outbox.is_sealed:
            return False
        return self._outbox.is_empty and not self._machine.requested

    def asks_for_others(self) -> NonDeterminismError | None:
        """The error of a step that only waits, and whose body asks for other children each time it runs again."""
        for op_id, body in self.bodies.items():
            count = self._inbox.outcomes_unasked(op_id)
            if count > OTHER_CHILDREN_MAX:
                return NonDeterminismError(
                    expected=f"{count} children that the body of {body.op} started, and has not asked for again",
                    actual="others, each time the body runs: their inputs differ",
                    advice="A child that a step starts is known by its id, or else by its name and input. Give it an "
                    "`id=`, or compute its input in a step before this one.",
                )
        return None

    def computes(self, look: Look) -> bool:
        """True when a body does more than wait durably. Not for each turn."""
        return any(body.computes(look) for body in self.bodies.values())

    def has_limits(self, look: Look) -> bool:
        """True when a time limit of its own code runs while a body waits: it would be lost with the body."""
        return any(body.has_limits(look) for body in self.bodies.values())

    def leave_notes(self) -> None:
        """The flow is let go: note what the next run has to know of the bodies that wait."""
        for body in self.bodies.values():
            body.leave_notes()

    @property
    def due(self) -> list[float]:
        """When the bodies go on by themselves, by the log's clock: those that do."""
        return [due for body in self.bodies.values() if (due := body.due) is not None]

    def describe(self) -> list[dict[str, Any]]:
        """What the bodies do or wait for."""
        return [told for body in self.bodies.values() for told in body.describe()]
