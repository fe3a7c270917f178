"""What crosses the seam to the log: values that land whole or not at all.

Everything here is a tuple or a frozen `msgspec.Struct`, which asks a twentieth of a dataclass when it is imported. The
hot ones are tuples because they are made once per step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct, field

from ergon.core.history import Event
from ergon.core.status import TaskStatus


class MessageKind:
    """What a message in a flow's inbox asks for."""

    SIGNAL: Final = "signal"
    CHILD: Final = "child"
    """A child flow ended: `name` is the parent's operation, the payload a JSON object with the child's `flow_id`,
    `name` and `input`, its `status`, its `output`, and the `reason` where it has no output."""
    TAKEN: Final = "taken"
    """A child was asked for and another flow has its id: `name` is the parent's operation, the payload an `IdTaken`."""
    CANCEL: Final = "cancel"
    RETRY_NOW: Final = "retry_now"
    """Steps of a running flow that back off are to be tried again at once."""


CANCEL_KEY: Final = "cancel"
"""The key of a person's cancellation: a second one changes nothing until the flow has heard of the first."""


class CancelName:
    """The name of a cancellation, as a message and as an event: who asks."""

    PERSON: Final = ""
    AGAIN: Final = "again"
    """A person who means to break off the cleaning up that an earlier one led to."""
    PARENT: Final = "parent"
    """The parent stopped waiting for it."""
    PARENT_ENDED: Final = "parent_ended"
    """The parent ended: told to a flow only if it has not heard already that its parent stopped waiting."""
    DEADLINE: Final = "deadline"


EPOCHS_A_LIFE: Final = 2**20
"""A new flow's epoch is a multiple of this, and the flow that gets the id of a deleted one has a higher multiple than
that one's last epoch."""


class Lease(NamedTuple):
    """The right to write to a flow: who holds it, and the flow's epoch when it was claimed."""

    worker: str
    """The incarnation id of a registered worker."""
    epoch: int
    """One more with each claim of the flow. It never comes again for the flow's id, also when the flow is deleted and
    another one gets the id: what is still on its way under an earlier lease would else be taken for the new flow's."""

    @property
    def claims(self) -> int:
        """How often the flow has been claimed, this claim included; from 0 again after `EPOCHS_A_LIFE` claims."""
        return self.epoch % EPOCHS_A_LIFE


class Message(NamedTuple):
    """Something for a flow's inbox."""

    flow_id: str
    kind: str
    name: str
    payload: str | None = None
    key: str | None = None
    """Idempotency key within (flow, kind, name): a second message with the same key changes nothing."""


class Received(NamedTuple):
    """A message as the log keeps it."""

    id: int
    """Grows with each message of a flow; the order of arrival."""
    flow_id: str
    kind: str
    name: str
    payload: str | None
    at: float


class NewFlow(NamedTuple):
    """A flow to create. Creating one whose id exists with the same name and input changes nothing."""

    id: str
    name: str
    input: str
    """JSON."""
    queue: str = "default"
    version: str | None = None
    priority: int = 0
    """Higher is claimed first."""
    start_at: float | None = None
    """Not claimable before this, by the log's clock; None: at once."""
    delay_seconds: float | None = None
    """Added to the log's present time to give `start_at`."""
    timeout_seconds: float | None = None
    """The flow is cancelled this long after it first starts."""
    parent_id: str | None = None
    parent_op: str | None = None
    """The parent's operation that awaits this flow's outcome."""
    close_with_parent: bool = True
    """Cancel this flow when its parent ends first."""
    owner: str | None = None
    """Create it already claimed by this worker, for a caller that runs it at once. The flow's record has the epoch."""
    tags: tuple[str, ...] = ()
    """Only workers that have all of these may claim it."""

    def owned_by(self, owner: str) -> NewFlow:
        """The same flow, to be created as this worker's own. In a third of the time that `_replace` takes."""
        return tuple.__new__(NewFlow, (*self[:_OWNER], owner, *self[_OWNER + 1 :]))


_OWNER: Final = NewFlow._fields.index("owner")


class ChildCancel(NamedTuple):
    """Ask a child to cancel. The flow with this id is asked only if this operation of the sender started it."""

    flow_id: str | None
    """None: `op` is a step, and all children that its body started are asked, but for the detached ones. Which these
    are the owner does not know when the body ran in another process."""
    op: str
    reason: str
    """JSON."""
    attempt: int = 1
    """The sender's: each may wait for the child, and stop waiting, once more."""


def read_reason(payload: str | None) -> str:
    """Why a flow is to cancel, as whoever asked wrote it; empty when nothing was said."""
    if payload is None:
        return ""
    try:
        return msgspec.json.decode(payload, type=str)
    except msgspec.MsgspecError:
        return payload


def parent_cancelled(reason: str) -> str:
    """Why a child is cancelled whose parent was, for this reason. A grandchild is told the same as the child."""
    told = "its parent was cancelled"
    return reason if reason.startswith(told) else f"{told}: {reason}" if reason else told


class IdTaken(NamedTuple):
    """Which flow has the id that a child was to get."""

    flow_id: str
    name: str
    input: str | None
    """JSON, when the very operation that asks started that flow, with another name or input; None for a stranger."""

    @property
    def payload(self) -> str:
        """For the message that tells the parent."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, payload: str) -> IdTaken:
        """What `payload` wrote."""
        return msgspec.json.decode(payload, type=cls)


class Settled(NamedTuple):
    """How a commit leaves a flow that its owner lets go."""

    status: TaskStatus
    """COMPLETED, FAILED, CANCELLED, SUSPENDED, PENDING (given back) or PARKED."""
    output: str | None = None
    """JSON: the result, or the failure. Only for the terminal three."""
    wake_at: float | None = None
    """For SUSPENDED: when the earliest timer is due; for PENDING: not claimable before. None: no such time."""
    reason: str = ""
    """JSON that says what the flow waits for (a list of `Wait`), or plain text why it is parked or was cancelled."""
    inbox_seen: int = 0
    """The highest message id the owner has seen: a later one turns SUSPENDED into PENDING at once."""


class Commit(NamedTuple):
    """Everything one advance of a flow changes. All of it lands under `lease`, or none of it does."""

    flow_id: str
    lease: Lease
    events: tuple[Event, ...] = ()
    consumed: tuple[tuple[int, int], ...] = ()
    """Inbox messages by id, each with the number of the event that accounts for it."""
    cancels: tuple[ChildCancel, ...] = ()
    """Children to be asked to cancel. One for a flow that has ended, or is not that child, is dropped."""
    children: tuple[NewFlow, ...] = ()
    """Flows to create. An id that exists does not refuse the commit: the flow's inbox says so, see `ExecutionLog`."""
    settled: Settled | None = None
    """None: the flow stays with its owner."""
    returned: tuple[int, ...] = ()
    """Numbers of earlier events whose signal nobody received: it is unread again, in its old place."""


make_commit: Final[Callable[[tuple[Any, ...]], Commit]] = partial(tuple.__new__, Commit)
"""`Commit(*fields)`, in half the time: it is made once for every step of every flow."""


def given_back(flow_id: str, lease: Lease) -> Commit:
    """Leave a flow as it is, for anybody to claim."""
    return Commit(flow_id, lease, settled=Settled(TaskStatus.PENDING))


class FlowRecord(NamedTuple):
    """One flow as the log keeps it, without its history."""

    id: str
    name: str
    status: TaskStatus
    queue: str
    version: str | None
    priority: int
    input: str
    output: str | None
    reason: str
    created_at: float
    started_at: float | None
    """When it was first claimed: where the flow's own time begins."""
    ended_at: float | None
    wake_at: float | None
    deadline_at: float | None
    owner: str | None
    epoch: int
    claims_stalled: int
    """Claims in a row after which the owner died without recording anything."""
    parent_id: str | None
    parent_op: str | None
    close_with_parent: bool
    tags: tuple[str, ...] = ()
    """Only workers that have all of these claim it. Sorted, each once."""

    @property
    def claims(self) -> int:
        """How often it has been claimed; from 0 again after `EPOCHS_A_LIFE` claims."""
        return self.epoch % EPOCHS_A_LIFE


make_record: Final[Callable[[tuple[Any, ...]], FlowRecord]] = partial(tuple.__new__, FlowRecord)
"""`FlowRecord(*fields)`, quicker: it is made once for every flow that is claimed."""


class ClaimedFlow(NamedTuple):
    """A flow that now belongs to the claimer, with all it needs to go on."""

    flow: FlowRecord
    lease: Lease
    events: list[Event]
    inbox: list[Received]
    """Messages not yet accounted for by an event, oldest first."""
    inbox_seen: int = 0
    """A message of this flow with this id or a lower one is in `inbox`, or an event in `events` accounts for it."""


class ClaimRequest(Struct, frozen=True, kw_only=True):
    """Which flows a worker can run, and how many it has room for."""

    worker: str
    names: tuple[str, ...]
    queues: tuple[str, ...] = ("default",)
    versions: tuple[str, ...] | None = None
    """Versions this worker runs, as names and ranges that `VersionSet.parse` reads; None: any. A flow without a version
    fits every worker."""
    tags: tuple[str, ...] = ()
    """What the worker has. A flow goes only to a worker that has all of its tags; one without any fits every worker."""
    limit: int = 100
    claims_stalled_max: int = 20
    """A flow claimed this often in a row without progress is parked instead."""
    flow_id: str | None = None
    """Only this flow, whatever its queue, version and tags."""
    timeouts: Mapping[str, float] = field(default_factory=dict)
    """Seconds after its first start when a flow of this name is cancelled, if whoever started it named no time: that
    may be a program without the flow's code. Counts from the first claim on, and stays with the flow."""
    due: bool = True
    """Also flows whose start or wake time has come; False leaves those to other workers."""


class WorkerRecord(Struct, frozen=True, kw_only=True):
    """One incarnation of a worker: a process's claim to be alive."""

    id: str
    """Unique for each start."""
    name: str
    host: str
    pid: int
    process_start: str
    """Tells a reused pid from the same process, such as the kernel's start time of the process."""
    boot_id: str
    flows: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    versions: tuple[str, ...] | None = None
    """Names and ranges, as in `ClaimRequest`."""
    tags: tuple[str, ...] = ()
    started_at: float = 0.0
    lease_expires_at: float = 0.0
    state: str = "alive"
    """alive, draining, dead or stopped."""


class Hint(Struct, frozen=True):
    """Something changed; look sooner than you would. Losing a hint costs time, never work."""

    ready: bool = False
    """Some flow became claimable."""
    wake_at: float | None = None
    """Some flow becomes claimable at this time."""
    inbox: frozenset[str] = frozenset()
    """Flows that got a message."""
    settled: Mapping[str, Settled | None] = field(default_factory=dict)
    """Flows that were let go: ended, suspended, given back or parked; and how, where that is at hand."""
    elsewhere: bool = False
    """Another process wrote: anything may have changed."""


class Durability(Struct, frozen=True, kw_only=True):
    """What the log's live settings survive."""

    level: str
    """D0 nothing, D1 worker crashes, D2 also a crash of the database process, D3 also power loss, D4 also
    loss of the machine."""
    settings: dict[str, str] = field(default_factory=dict)
    """The settings read back, which back the level."""
    limits: tuple[str, ...] = ()
    """What keeps it from a higher level."""
    notes: tuple[str, ...] = ()
    """What people should know of it: the limits that a setting or another place would lift, and warnings."""


class FlowFilter(Struct, frozen=True, kw_only=True):
    """Which flows to list; every field narrows."""

    statuses: tuple[TaskStatus, ...] = ()
    names: tuple[str, ...] = ()
    queue: str | None = None
    version: str | None = None
    tags: tuple[str, ...] = ()
    """Flows that have all of these."""
    parent_id: str | None = None
    id_prefix: str | None = None
    created_after: float | None = None
    created_before: float | None = None
