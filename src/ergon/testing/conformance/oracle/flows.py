"""The model's state: flows with their events and messages, and how a message or an end moves them.

Time is only told apart as far as it decides something: at once (`wake` is False), or not during a test (True). When
things became ready is a tuple that sorts like the time would.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from ergon.core.commit import (
    CANCEL_KEY,
    EPOCHS_A_LIFE,
    CancelName,
    MessageKind,
    parent_cancelled,
    read_reason,
)
from ergon.core.history import Event
from ergon.core.status import TERMINAL, TaskStatus

Ready = tuple[int, int]
"""Sorts by how long something has been ready: long ago first, then by the operation that made it so."""


@dataclass
class ModelMessage:
    """A message, and which operation brought it."""

    kind: str
    name: str
    payload: str | None
    key: str | None
    tick: int
    consumed: int | None = None
    id: int = 0
    """The log's number for it, learned when the two are compared."""

    @property
    def is_new(self) -> bool:
        """It came with the present operation."""
        return self.id == 0


@dataclass
class ModelFlow:
    """A flow."""

    id: str
    name: str
    input: str
    queue: str
    version: str | None
    priority: int
    tags: tuple[str, ...]
    timeout: bool
    parent_id: str | None
    parent_op: str | None
    close_with_parent: bool
    number: int
    status: TaskStatus = TaskStatus.PENDING
    output: str | None = None
    reason: str = ""
    started: bool = False
    deadline: bool = False
    wake: bool = False
    """It waits for a time that does not come during a test."""
    held_wake: bool = False
    """It is paused, and its start time is one that does not come."""
    ready: Ready = (1, 0)
    owner: str | None = None
    epoch: int = -1
    """Learned when the two are compared, for a log begins to count where it likes; negative until then."""
    stalled: int = 0
    claimed_seq: int | None = None
    events: list[Event] = field(default_factory=list)
    messages: list[ModelMessage] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL

    @property
    def last_seq(self) -> int:
        return max((event.seq for event in self.events), default=0)

    @property
    def first_epoch(self) -> int:
        """The epoch of its first claim."""
        return self.epoch - self.epoch % EPOCHS_A_LIFE + 1

    @property
    def unread(self) -> list[ModelMessage]:
        return [message for message in self.messages if message.consumed is None]


class Flows:
    """All flows, and what happens between them."""

    def __init__(self) -> None:
        self.by_id: dict[str, ModelFlow] = {}
        self.tick = 0
        self.created = 0
        self.epochs: dict[str, int] = {}
        """By id: the last epoch of the flow that had it before."""
        self._ended: list[ModelFlow] = []

    # -- one flow --------------------------------------------------------------------------------------------

    def make_ready(self, flow: ModelFlow) -> None:
        """Let it be claimed from now on."""
        flow.status, flow.owner, flow.wake, flow.ready = TaskStatus.PENDING, None, False, (1, self.tick)

    def end(self, flow: ModelFlow, status: TaskStatus) -> None:
        """Note that a flow ended; `tell_relatives` carries it on."""
        flow.status, flow.owner, flow.wake = status, None, False
        self._ended.append(flow)

    def deliver(self, flow_id: str, kind: str, name: str, payload: str | None, key: str | None) -> bool:
        """Put a message into an inbox and do what it asks. False when it changes nothing there."""
        flow = self.by_id.get(flow_id)
        if flow is None or flow.ended:
            return False
        if kind == MessageKind.CANCEL:
            self._forget_heard(flow, key)
        if self.has_key(flow_id, kind, name, key):
            if kind == MessageKind.CANCEL and key == CANCEL_KEY:
                self._cancel(
                    flow, payload
                )  # who repeats it means it, also if the flow was held back meanwhile
            return False
        flow.messages.append(ModelMessage(kind, name, payload, key, self.tick))
        if kind == MessageKind.CANCEL:
            self._cancel(flow, payload)
        elif flow.status is TaskStatus.SUSPENDED:
            self.make_ready(flow)
        return True

    def has_key(self, flow_id: str, kind: str, name: str, key: str | None) -> bool:
        """Whether the flow has had this message."""
        flow = self.by_id.get(flow_id)
        return (
            flow is not None
            and key is not None
            and any((one.kind, one.name, one.key) == (kind, name, key) for one in flow.messages)
        )

    def _forget_heard(self, flow: ModelFlow, key: str | None) -> None:
        """A cancellation the flow has heard is no reason to drop the next."""
        for one in flow.messages:
            heard = one.consumed is not None and one.kind == MessageKind.CANCEL
            by_person_or_end = one.name in (CancelName.PERSON, CancelName.AGAIN, CancelName.PARENT_ENDED)
            if heard and by_person_or_end and one.key == key and key in (CANCEL_KEY, "parent-closed"):
                one.key = None

    def _cancel(self, flow: ModelFlow, payload: str | None) -> None:
        waits = flow.status in (TaskStatus.SUSPENDED, TaskStatus.PAUSED, TaskStatus.PARKED) or flow.wake
        if not flow.started and flow.status in (TaskStatus.PENDING, TaskStatus.PAUSED):
            flow.reason = read_reason(payload) or "cancelled before it started"
            self.end(flow, TaskStatus.CANCELLED)
        elif waits:
            self.make_ready(flow)
            flow.stalled, flow.claimed_seq = 0, None

    # -- relatives -------------------------------------------------------------------------------------------

    def tell_relatives(self) -> None:
        """Tell parents that their children ended, and children that their parents did."""
        while self._ended:
            ended, self._ended = self._ended, []
            for flow in ended:
                if flow.parent_id is not None and flow.parent_op is not None:
                    self.deliver(flow.parent_id, MessageKind.CHILD, flow.parent_op, told(flow), None)
            for flow in ended:
                for child in self.children(flow.id):
                    if child.close_with_parent and not child.ended:
                        name, why = CancelName.PARENT_ENDED, json.dumps(_why(flow))
                        self.deliver(child.id, MessageKind.CANCEL, name, why, "parent-closed")

    def is_about_to_tell(self, flow: ModelFlow) -> bool:
        """Whether the flow ended just now, so that its relatives will hear of it."""
        return flow in self._ended

    def children(self, flow_id: str) -> list[ModelFlow]:
        """The flows that this one started."""
        return [flow for flow in self.by_id.values() if flow.parent_id == flow_id]

    def root(self, flow_id: str) -> str:
        """The first of a flow's ancestors, which tells families apart."""
        seen = [flow_id]
        while (flow := self.by_id.get(seen[-1])) is not None and flow.parent_id not in (None, *seen):
            seen.append(str(flow.parent_id))
        return seen[-1]

    def family(self, flow: ModelFlow) -> list[ModelFlow]:
        """The flow, and the descendants that leave with it."""
        found = [flow]
        for one in found:
            leaving = (child for child in self.children(one.id) if child.close_with_parent or child.ended)
            found += [child for child in leaving if child not in found]
        return found


def told(flow: ModelFlow) -> str:
    """What a parent hears of the end of its child."""
    said = {
        "flow_id": flow.id,
        "name": flow.name,
        "input": json.loads(flow.input),
        "status": flow.status.value,
        "output": json.loads(flow.output) if flow.output is not None else None,
    }
    return json.dumps(said if flow.output is not None else {**said, "reason": flow.reason})


def _why(flow: ModelFlow) -> str:
    if flow.status is TaskStatus.CANCELLED:
        return parent_cancelled(flow.reason)
    return f"its parent {flow.status}"
