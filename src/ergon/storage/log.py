"""The execution log: the contract every store keeps.

Five facets, one object: *journal* (what owners write), *intake* (what anyone may write), *leases* (who owns
what), *catalog* (what anyone may read) and *hints* (look sooner). All writes of a process go through one group
commit: what is submitted while a transaction is in flight shares the next one, and each submission in it
succeeds or fails on its own. A write has happened when its call returned or its `done` was called without an
error; before that it may or may not have, and repeating it is safe.

All comparisons of time use the log's own clock, `now()`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import ClassVar, Self

from ergon.core.commit import (
    ClaimedFlow,
    ClaimRequest,
    Commit,
    Durability,
    FlowFilter,
    FlowRecord,
    Hint,
    Lease,
    Message,
    NewFlow,
    Received,
    WorkerRecord,
)
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.storage.answers import all_answers


class ExecutionLog(ABC):
    """Where flows are kept. Open it with `await connect()` or `async with`; one per process and store."""

    # -- life ------------------------------------------------------------------------------------------

    @abstractmethod
    async def connect(self) -> Self:
        """Open the log, creating or migrating its tables. Connecting twice changes nothing.

        Raises `LogRefused`, `LogTooNew`, `LogDamaged`, `LogBusy`.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish the writes already submitted, then close. Closing twice changes nothing."""

    async def __aenter__(self) -> Self:
        return await self.connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    @abstractmethod
    def url(self) -> str:
        """How to name this log to another process, without secrets."""

    @abstractmethod
    async def durability(self) -> Durability:
        """Read the live settings back and say what they survive."""

    @abstractmethod
    def now(self) -> float:
        """The log's clock: seconds since 1970-01-01 UTC."""

    # -- journal: owners write -------------------------------------------------------------------------

    @abstractmethod
    def submit(self, commit: Commit, done: Callable[[BaseException | None], None]) -> None:
        """Put `commit` into the next group commit. Call from the event loop that connected the log.

        `done(None)` is called on that loop once the commit is durable, `done(error)` when nothing of it was
        written: `LeaseLost` when `commit.lease` no longer owns the flow or its worker was declared dead (made by
        `LeaseLost.of_flow`, its status says how a flow stands that nobody owns, or that the lease's own worker has
        claimed it anew),
        `LogFull` and `LogBusy` when the same commit may be submitted again later. `done` is called from a
        plain callback, never inside a task.

        A child whose id exists does not keep the rest from landing. When the commit's own operation started that
        flow before, with the same name and input, it is the child that was asked for. Otherwise the parent gets a
        TAKEN message in the same transaction. When that child has ended and no message of its end is unread, the
        parent gets one more. A parent that ends with this commit gets none of these.

        A cancel reaches only the child that the operation it names started: never a flow that merely has the id. One
        without an id reaches all children of that step's body, whose operations are the step's, a slash and more.
        """

    # -- intake: anyone writes -------------------------------------------------------------------------

    @abstractmethod
    async def create(self, flow: NewFlow) -> FlowRecord | None:
        """Create a flow. None when it was created, else the flow that already has this id.

        The caller compares the two; creating changes nothing when the id exists.
        """

    async def create_all(self, flows: Sequence[NewFlow]) -> list[FlowRecord | None]:
        """`create` for each, at once; raises the first error once all are answered.

        This works for any log. One that need not make a task for each does without; whoever changes `create` of such a
        log in a subclass changes this and `create_claimed` too.
        """
        return await all_answers([asyncio.ensure_future(self.create(flow)) for flow in flows])

    @property
    def is_new(self) -> bool:
        """True while nothing can be there to claim, but for what others wrote in the last moments.

        This very handle made the log, created no flow in it, looked for none, and has heard of no writes but its own.
        """
        return False

    starts_eagerly: ClassVar[bool] = False
    """Whether `create_claimed` costs no more than `create_all`, so that a worker's process uses it.

    Who waits for a flow then also relies on the order of what a commit sets off: first its answer, then its hint.
    """

    async def create_claimed(self, flows: Sequence[NewFlow]) -> list[ClaimedFlow | FlowRecord | None]:
        """`create_all` for flows that name their owner: each that was created comes as a claim would bring it.

        One whose id exists comes as the flow that has it. None: it was created and is not its owner's, because it named
        none, or was paused, killed or deleted at once. Raises `LeaseLost` when an owner is not alive; flows that name
        it may have been created before it died.
        """
        answers: list[ClaimedFlow | FlowRecord | None] = [*await self.create_all(flows)]
        for place, flow in enumerate(flows):
            if answers[place] is None and flow.owner is not None:
                created = await self.find(flow.id)
                if created is not None and created.owner == flow.owner:
                    answers[place] = ClaimedFlow(created, Lease(flow.owner, created.epoch), [], [])
        return answers

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Put a message into a flow's inbox; a suspended flow becomes pending.

        Raises `FlowNotFound`, and `IllegalMove` when the flow has ended (but not for a repeated key).
        """

    @abstractmethod
    async def move(
        self,
        flow_id: str,
        target: TaskStatus,
        *,
        reason: str = "",
        output: str | None = None,
        only: Collection[TaskStatus] | None = None,
    ) -> FlowRecord:
        """An operator's act on a flow: PAUSED, PENDING (resume, retry) or CANCELLED (kill).

        PENDING is only for flows that are paused, parked or failed. `only` narrows from which statuses, decided in
        the very write: whoever meant to resume a flow must not retry one that has failed in the meantime.
        Pausing and killing take the flow from its owner at once: the owner's next commit gets `LeaseLost`, and `lost`
        tells it. A flow paused before it started keeps its start time. Resuming sets `claims_stalled` back to 0;
        retrying a failed flow adds a FLOW_RETRIED event whose payload is the failure, so that its next attempt reuses
        what it completed. Killing cancels the children that close with their parent, and tells the parent.
        Returns the flow as it is afterwards. Raises `FlowNotFound`, `IllegalMove` with the flow's `status`.
        """

    @abstractmethod
    async def reschedule(
        self, flow_id: str, *, at: float | None = None, delay_seconds: float | None = None
    ) -> FlowRecord:
        """Give a flow that has not started another start time: `at`, or so long from now; neither: at once.

        A paused flow stays paused, and starts then or when it is resumed, whichever is later. Returns the flow as it
        is afterwards. Raises `FlowNotFound`, and `IllegalMove` when it has started.
        """

    @abstractmethod
    async def retry_now(self, flow_id: str) -> FlowRecord:
        """Let what waits to be tried again, the flow itself or steps of it, be tried again at once.

        A flow without an owner gets a RETRY_NOW event and becomes pending; one that runs gets a message, and its owner
        writes the event. Returns the flow as it is afterwards.
        Raises `FlowNotFound`, and `IllegalMove` when nothing of the flow waits to be tried again.
        """

    @abstractmethod
    async def delete(self, flow_id: str) -> bool:
        """Remove an ended flow with its history, inbox and children. False when there is no such flow.

        A detached child that has not ended stays, and has no parent any more.
        Raises `IllegalMove` when it has not ended.
        """

    # -- leases: who owns what -------------------------------------------------------------------------

    @abstractmethod
    async def register(self, worker: WorkerRecord, *, lease_seconds: float) -> WorkerRecord:
        """Declare a worker's incarnation alive for `lease_seconds` from now."""

    @abstractmethod
    async def renew(
        self, worker_id: str, *, lease_seconds: float, doing: dict[str, str] | None = None
    ) -> float:
        """Extend the lease; returns when it now expires, by the log's clock.

        `doing` sets the `reason` of flows this worker owns, for whoever asks why one does not move.
        Raises `LeaseLost` when the incarnation was declared dead: register again under a new id.
        """

    def keep_alive(self, worker_id: str, *, lease_seconds: float) -> None:  # noqa: B027 - not every log can
        """Ask for one renewal from any thread, while the event loop is blocked. Returns at once, without an answer.

        The log extends the lease as soon as it can, as `renew` does, or does nothing: when the incarnation is not alive
        any more, which is decided in the very transaction, and when the log is not open. The one who asked cannot know
        which, so no work may start on the strength of it. May be called from several threads at once, and must
        not block. A log that cannot write without its event loop does nothing: its leases run out while the loop is
        blocked.
        """

    @abstractmethod
    async def note_draining(self, worker_id: str) -> None:
        """Say that a living incarnation claims nothing more and is about to end. For people: it is still alive."""

    @abstractmethod
    async def retire(self, worker_id: str) -> int:
        """End an incarnation. Flows it still owns become pending; returns how many."""

    @abstractmethod
    async def reap(self) -> list[WorkerRecord]:
        """Declare dead each worker whose lease has expired or whose process is known to be gone.

        Marking comes first and refuses every later write of that incarnation; then its flows become pending.
        Returns the workers declared dead by this call.
        """

    @abstractmethod
    async def claim(self, request: ClaimRequest) -> list[ClaimedFlow]:
        """Take ownership of flows that are ready, by priority and then by how long they have been ready.

        Flows whose start or wake time has come are ready. Each comes with its history and unread inbox,
        both as they were when it was taken, or later.
        Only flows are taken whose queue, name, version and tags fit the request: a flow's tags must all be among the
        worker's. What does not fit costs nothing, however much of it stands in front.
        A flow without code for it is never touched and never stands in another's way. Nor does a damaged one: it is
        parked, or passed over when not even that can be written.
        Raises `LeaseLost` when the worker was declared dead.
        """

    @abstractmethod
    async def disown(self, worker_id: str, known: Sequence[tuple[str, int]]) -> Sequence[str]:
        """Give back what `worker_id` owns and does not know of: all but `known`, flow ids with epochs.

        For a claim whose answer was lost, so that its flows have an owner who lives and runs none of them. To be called
        while no claim of the worker is under way, nor a creation of flows as its own. Returns the ids of these flows,
        which are pending now.
        """

    # -- catalog: anyone reads -------------------------------------------------------------------------

    @abstractmethod
    async def find(self, flow_id: str) -> FlowRecord | None:
        """One flow, or None. Raises `LogDamaged` with its `flow_id` when the flow is damaged; so do the next two."""

    @abstractmethod
    async def history(self, flow_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """The events of a flow with `seq` greater than `after`, in order."""

    @abstractmethod
    async def inbox(self, flow_id: str) -> list[Received]:
        """The messages of a flow that no event accounts for yet, oldest first."""

    @abstractmethod
    async def has_key(self, message: Message) -> bool:
        """Whether the flow was ever sent a message of this kind, name and key: sending it again changes nothing."""

    @abstractmethod
    async def arrivals(self, worker_id: str, after: int) -> tuple[int, list[Received]]:
        """Messages that came for flows `worker_id` owns since the cursor `after` (0: from the start).

        Returns the next cursor and the messages, oldest first for each flow. A message may be returned more
        than once.
        """

    @abstractmethod
    async def ended_or_parked(self, flow_ids: Sequence[str]) -> tuple[list[FlowRecord], list[str]]:
        """Those of `flow_ids` that have ended or are parked; and those that no flow has.

        Raises `LogDamaged` with the `flow_id` of the first among them that is damaged.
        """

    @abstractmethod
    async def lost(
        self, worker_id: str, epochs: Sequence[tuple[str, int]]
    ) -> list[tuple[str, TaskStatus | None]]:
        """Those of these flows that `worker_id` does not own at this epoch, and where they stand now (None: gone).

        So an owner hears that a flow was paused, killed or deleted while it computes or waits in memory.
        """

    @abstractmethod
    async def count(self, where: FlowFilter) -> dict[TaskStatus, int]:
        """How many flows there are of each status."""

    @abstractmethod
    async def workers(self) -> list[WorkerRecord]:
        """Every incarnation still on record, newest first."""

    @abstractmethod
    async def next_wake(self, names: Sequence[str]) -> float | None:
        """When the next of the flows with these names becomes claimable by time, or None."""

    # Last of the facet: after it, `list` in an annotation of this class would mean this method.
    @abstractmethod
    async def list(
        self, where: FlowFilter, *, limit: int = 100, after: str | None = None
    ) -> tuple[list[FlowRecord], str | None]:
        """Flows, newest first, and the key of the next page (None: no more). `after` is such a key.

        A flow that goes from one of the statuses asked for to another at that moment is there, once.

        Damaged flows are left out, and the logger `ergon.storage` names them.
        """

    # -- hints: look sooner ----------------------------------------------------------------------------

    @abstractmethod
    def subscribe(self, listener: Callable[[Hint], None]) -> Callable[[], None]:
        """Call `listener` on the log's event loop when something changed; returns how to stop.

        Changes by other processes arrive within 20 ms on an idle machine. A listener must not block.
        """
