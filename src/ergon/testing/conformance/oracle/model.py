"""What each call of `ExecutionLog` does to the model, and what it answers: None, a value, or the name of an error."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from ergon.core.commit import ClaimRequest, Commit, IdTaken, Lease, Message, MessageKind, NewFlow, Settled
from ergon.core.history import Event, EventKind
from ergon.core.status import TERMINAL, TaskStatus, may_move
from ergon.core.versions import VersionSet
from ergon.testing.conformance.oracle.flows import Flows, ModelFlow, told

BACKS_OFF_AT: Final = 4_000_000_000.0
"""When an attempt is due that does not come during a test."""
LEASE_LOST, ILLEGAL, NOT_FOUND = "LeaseLost", "IllegalMove", "FlowNotFound"
ALIVE: Final = ("alive", "draining")
S = TaskStatus


class Model:
    """Everything a log knows, in plain Python."""

    def __init__(self) -> None:
        self.flows = Flows()
        self.workers: dict[str, str] = {}

    def find(self, flow_id: str) -> ModelFlow | None:
        return self.flows.by_id.get(flow_id)

    def is_alive(self, worker: str) -> bool:
        return self.workers.get(worker) in ALIVE

    # -- intake ----------------------------------------------------------------------------------------------

    def create(self, new: NewFlow) -> str | None:
        """None when it was created."""
        if self.find(new.id) is not None:
            return "exists"
        if new.owner is not None and not self.is_alive(new.owner):
            return LEASE_LOST
        self._insert(new)
        return None

    def _insert(self, new: NewFlow) -> None:
        self.flows.created += 1
        flow = ModelFlow(
            new.id, new.name, new.input, new.queue, new.version, new.priority, tuple(sorted({*new.tags})),
            new.timeout_seconds is not None, new.parent_id, new.parent_op, new.close_with_parent,
            self.flows.created,
        )  # fmt: skip
        flow.ready = (0 if new.start_at is not None else 1, self.flows.tick)
        flow.wake = new.delay_seconds is not None
        if new.owner is not None:
            flow.status, flow.owner = S.RUNNING, new.owner
            flow.started, flow.deadline, flow.wake, flow.claimed_seq = True, flow.timeout, False, 0
        self.flows.by_id[new.id] = flow

    def send(self, message: Message) -> str | None:
        flow_id, kind, name, _, key = message
        inserted = self.flows.deliver(*message)
        self.flows.tell_relatives()
        if inserted or self.flows.has_key(flow_id, kind, name, key):
            return None
        return NOT_FOUND if self.find(flow_id) is None else ILLEGAL

    def move(
        self, flow_id: str, target: S, reason: str, output: str | None, only: Collection[S] | None
    ) -> str | None:
        flow = self.find(flow_id)
        if flow is None:
            return NOT_FOUND
        if flow.status is target and target in (S.PAUSED, S.CANCELLED):
            return None
        if not may_move(flow.status, target) or (only is not None and flow.status not in only):
            return ILLEGAL
        if flow.status is S.FAILED:
            before = sum(event.kind == EventKind.FLOW_RETRIED for event in flow.events)
            self._note(flow, EventKind.FLOW_RETRIED, flow.output, before + 1)
            flow.deadline = False
        flow.reason, flow.output, flow.claimed_seq = reason, output, None
        if target is S.PAUSED:
            flow.held_wake = flow.wake and not flow.started
            flow.status, flow.owner, flow.wake = S.PAUSED, None, False
        elif target is S.CANCELLED:
            self.flows.end(flow, S.CANCELLED)
            self.flows.tell_relatives()
        else:
            later = flow.status is S.PAUSED and flow.held_wake
            self.flows.make_ready(flow)
            flow.wake, flow.stalled = later, 0
        return None

    def reschedule(self, flow_id: str, *, later: bool) -> str | None:
        flow = self.find(flow_id)
        if flow is None:
            return NOT_FOUND
        if flow.started or flow.status not in (S.PENDING, S.PAUSED):
            return ILLEGAL
        if flow.status is S.PAUSED:
            flow.held_wake = later
        else:
            self.flows.make_ready(flow)
            flow.wake = later
        return None

    def retry_now(self, flow_id: str) -> str | None:
        flow = self.find(flow_id)
        if flow is None:
            return NOT_FOUND
        if flow.status not in (S.PENDING, S.SUSPENDED, S.RUNNING) or not _backs_off(flow):
            return ILLEGAL
        if flow.status is S.RUNNING:
            self.flows.deliver(flow_id, MessageKind.RETRY_NOW, "", None, None)
            return None
        self._note(flow, EventKind.RETRY_NOW, None, 0)
        if flow.status is S.SUSPENDED or flow.wake:
            self.flows.make_ready(flow)
        return None

    def delete(self, flow_id: str) -> bool | str:
        flow = self.find(flow_id)
        if flow is None:
            return False
        family = self.flows.family(flow)
        if not all(one.ended for one in family):
            return ILLEGAL
        for one in family:
            self.flows.epochs[one.id] = one.epoch
            del self.flows.by_id[one.id]
        for one in family:
            for child in self.flows.children(one.id):
                child.parent_id = child.parent_op = None
        return True

    def _note(self, flow: ModelFlow, kind: str, payload: str | None, attempt: int) -> None:
        flow.events.append(Event(flow.last_seq + 1, kind, "", "", "", payload, 0.0, "", attempt))

    # -- journal ---------------------------------------------------------------------------------------------

    def commit(self, commit: Commit) -> str | None:
        flow = self.find(commit.flow_id)
        owns = flow is not None and (flow.owner, flow.epoch) == tuple(commit.lease)
        if flow is not None and _landed(flow, commit):
            return None
        if flow is None or not owns:
            return LEASE_LOST
        if not _fits(flow, commit):
            return ILLEGAL
        flow.events += commit.events
        for seq in commit.returned:
            next(
                m for m in flow.messages if m.consumed == seq and m.kind == MessageKind.SIGNAL
            ).consumed = None
        for message_id, seq in commit.consumed:
            next(m for m in flow.unread if m.id == message_id).consumed = seq
        for new in commit.children:
            if self.find(new.id) is None:
                self._insert(new)
        self._cancel_children(commit)
        if commit.settled is not None:
            self._settle(flow, commit.settled)
        self._answer(flow, commit)
        self.flows.tell_relatives()
        return None

    def _settle(self, flow: ModelFlow, settled: Settled) -> None:
        flow.output, flow.reason = settled.output, settled.reason
        flow.stalled, flow.claimed_seq = 0, None
        if settled.status in TERMINAL:
            self.flows.end(flow, settled.status)
            return
        self.flows.make_ready(flow)
        flow.status = settled.status
        flow.wake = settled.wake_at is not None and settled.status in (S.SUSPENDED, S.PENDING)
        if settled.status is S.SUSPENDED and any(m.id > settled.inbox_seen or m.is_new for m in flow.unread):
            self.flows.make_ready(flow)

    def _cancel_children(self, commit: Commit) -> None:
        for cancel in commit.cancels:
            for child in self.flows.children(commit.flow_id):
                op = child.parent_op or ""
                in_body = (
                    cancel.flow_id is None and op.startswith(f"{cancel.op}/") and child.close_with_parent
                )
                if in_body or (child.id == cancel.flow_id and op == cancel.op):
                    key = f"parent-{cancel.attempt}"
                    self.flows.deliver(child.id, MessageKind.CANCEL, "parent", cancel.reason, key)

    def _answer(self, flow: ModelFlow, commit: Commit) -> None:
        """Tell the parent of ids that others have, and again of children that ended before it asked."""
        for new in commit.children:
            there = self.flows.by_id[new.id]
            ours = (there.parent_id, there.parent_op) == (new.parent_id, new.parent_op)
            if not ours or (there.name, there.input) != (new.name, new.input):
                taken = IdTaken(new.id, there.name, there.input if ours else None).payload
                key = f"{new.id}#{commit.lease.epoch}"
                self.flows.deliver(flow.id, MessageKind.TAKEN, new.parent_op or "", taken, key)
            waiting = any(m.kind == MessageKind.CHILD and m.name == new.parent_op for m in flow.unread)
            if ours and there.ended and not self.flows.is_about_to_tell(there) and not waiting:
                self.flows.deliver(flow.id, MessageKind.CHILD, new.parent_op or "", told(there), None)

    # -- leases ----------------------------------------------------------------------------------------------

    def register(self, worker: str) -> str | None:
        if self.workers.setdefault(worker, "alive") not in ALIVE:
            return LEASE_LOST
        return None

    def renew(self, worker: str, doing: dict[str, str]) -> str | None:
        if not self.is_alive(worker):
            return LEASE_LOST
        for flow in self.flows.by_id.values():
            if flow.owner == worker:
                flow.reason = doing.get(flow.id, flow.reason)
        return None

    def note_draining(self, worker: str) -> None:
        if self.workers.get(worker) == "alive":
            self.workers[worker] = "draining"

    def end_worker(self, worker: str, state: str) -> int:
        """Retired (`stopped`) or declared dead; returns how many flows it had."""
        if not self.is_alive(worker):
            return 0
        self.workers[worker] = state
        owned = [flow for flow in self.flows.by_id.values() if flow.owner == worker]
        for flow in owned:
            self.flows.make_ready(flow)
            if state == "stopped":
                flow.claimed_seq = None
        return len(owned)

    def disown(self, worker: str, known: Sequence[tuple[str, int]]) -> list[str]:
        unknown = [f for f in self.flows.by_id.values() if f.owner == worker and (f.id, f.epoch) not in known]
        for flow in unknown:
            self.flows.make_ready(flow)
        return sorted(flow.id for flow in unknown)

    def claimable(self, request: ClaimRequest) -> list[ModelFlow]:
        """The flows that fit, best first. Between equals the log chooses."""
        ready = [f for f in self.flows.by_id.values() if f.status is S.PENDING and not f.wake]
        if request.flow_id is not None:
            return [
                f for f in ready if f.id == request.flow_id and (not request.names or f.name in request.names)
            ]
        versions = None if request.versions is None else VersionSet.parse(request.versions)
        fitting = [
            flow
            for flow in ready
            if flow.name in request.names
            and flow.queue in request.queues
            and {*flow.tags} <= {*request.tags}
            and (versions is None or versions.matches(flow.version))
        ]
        return sorted(fitting, key=lambda flow: (-flow.priority, flow.ready))

    def take(self, worker: str, flow: ModelFlow) -> Lease:
        """Give a flow to a worker."""
        flow.stalled = flow.stalled + 1 if flow.claimed_seq == flow.last_seq else 0
        flow.claimed_seq = flow.last_seq
        flow.status, flow.owner, flow.epoch, flow.reason = S.RUNNING, worker, flow.epoch + 1, ""
        flow.started, flow.deadline = True, flow.deadline or flow.timeout
        return Lease(worker, flow.epoch)


def _backs_off(flow: ModelFlow) -> bool:
    announced = (EventKind.FLOW_RETRIED, EventKind.STEP_RETRIED)
    ended_at = max((e.seq for e in flow.events if e.kind == EventKind.RETRY_NOW), default=0)
    return any(e.kind in announced and e.at >= BACKS_OFF_AT and e.seq > ended_at for e in flow.events)


def _landed(flow: ModelFlow, commit: Commit) -> bool:
    return bool(commit.events) and all(event in flow.events for event in commit.events)


def _fits(flow: ModelFlow, commit: Commit) -> bool:
    """Whether nothing of it was done before, by another commit."""
    numbers = {event.seq for event in flow.events}
    unread = {message.id for message in flow.unread}
    taken = [m.consumed for m in flow.messages if m.kind == MessageKind.SIGNAL and m.consumed is not None]
    back = {m.id for m in flow.messages if m.consumed in commit.returned}
    return (
        not numbers & {event.seq for event in commit.events}
        and all(taken.count(seq) == 1 for seq in commit.returned)
        and {message_id for message_id, _ in commit.consumed} <= unread | back
    )
