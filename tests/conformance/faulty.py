"""Logs that are wrong in one way each: the SQLite log in memory, with one defect planted.

Defects inside the SQLite log, and what each of them fails, are in `defects.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from msgspec.structs import replace

from ergon.core.commit import (
    ClaimedFlow,
    ClaimRequest,
    Commit,
    FlowFilter,
    FlowRecord,
    Hint,
    Message,
    NewFlow,
    Received,
)
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost, LogClosed
from ergon.storage.sqlite import SqliteExecutionLog

Done = Callable[[BaseException | None], None]


class Sound(SqliteExecutionLog):
    """No defect."""

    def __init__(self) -> None:
        super().__init__(":memory:")


# -- commits -------------------------------------------------------------------------------------------------


class LosesEvents(Sound):
    def submit(self, commit: Commit, done: Done) -> None:
        super().submit(commit._replace(events=commit.events[:1]), done)


class RoundsTimes(Sound):
    def submit(self, commit: Commit, done: Done) -> None:
        rounded = tuple(event._replace(at=round(event.at, 3)) for event in commit.events)
        super().submit(commit._replace(events=rounded), done)


class CutsPayloads(Sound):
    def submit(self, commit: Commit, done: Done) -> None:
        cut = tuple(
            event._replace(payload=event.payload and event.payload[:1_000_000]) for event in commit.events
        )
        super().submit(commit._replace(events=cut), done)


class WritesEventsBeforeTheRest(Sound):
    def submit(self, commit: Commit, done: Done) -> None:
        if commit.events:
            super().submit(Commit(commit.flow_id, commit.lease, commit.events), lambda _: None)
        super().submit(commit._replace(events=()), done)


class AnswersBeforeItIsWritten(Sound):
    def submit(self, commit: Commit, done: Done) -> None:
        super().submit(commit, lambda _: None)
        done(None)


class ForgetsFence(Sound):
    """Writes under whatever lease the flow has now."""

    def submit(self, commit: Commit, done: Done) -> None:
        self._forget = asyncio.ensure_future(self._submit_as_owner(commit, done))

    def forgets(self, commit: Commit) -> bool:
        raise NotImplementedError

    async def _submit_as_owner(self, commit: Commit, done: Done) -> None:
        flow = await self.find(commit.flow_id)
        if flow is not None and flow.owner is not None and self.forgets(commit):
            commit = commit._replace(lease=commit.lease._replace(worker=flow.owner, epoch=flow.epoch))
        super().submit(commit, done)


class FencesNoEvents(ForgetsFence):
    def forgets(self, commit: Commit) -> bool:
        return bool(commit.events)


class FencesNoEnd(ForgetsFence):
    def forgets(self, commit: Commit) -> bool:
        return commit.settled is not None and not commit.events


class FencesNoChildren(ForgetsFence):
    def forgets(self, commit: Commit) -> bool:
        return bool(commit.children) and not commit.events


class FencesNoCancels(ForgetsFence):
    def forgets(self, commit: Commit) -> bool:
        return bool(commit.cancels) and not commit.events


class FencesNoConsuming(ForgetsFence):
    def forgets(self, commit: Commit) -> bool:
        return bool(commit.consumed) and not commit.events


class FencesByWorkerOnly(ForgetsFence):
    """Another claim of the same worker is another lease."""

    async def _submit_as_owner(self, commit: Commit, done: Done) -> None:
        flow = await self.find(commit.flow_id)
        if flow is not None and flow.owner == commit.lease.worker:
            commit = commit._replace(lease=commit.lease._replace(epoch=flow.epoch))
        Sound.submit(self, commit, done)


class ConsumesNothing(Sound):
    def submit(self, commit: Commit, done: Done) -> None:
        super().submit(commit._replace(consumed=()), done)


class GivesNothingBack(Sound):
    def submit(self, commit: Commit, done: Done) -> None:
        super().submit(commit._replace(returned=()), done)


class SleepsOnMessages(Sound):
    def submit(self, commit: Commit, done: Done) -> None:
        if commit.settled is not None:
            commit = commit._replace(settled=commit.settled._replace(inbox_seen=2**40))
        super().submit(commit, done)


# -- intake --------------------------------------------------------------------------------------------------


class DoublesMessages(Sound):
    async def send(self, message: Message) -> None:
        await super().send(message)
        await super().send(message)


class IgnoresKeys(Sound):
    async def send(self, message: Message) -> None:
        await super().send(message._replace(key=None))


class ForgetsStartTimes(Sound):
    async def create(self, flow: NewFlow) -> FlowRecord | None:
        return await super().create(flow._replace(start_at=None, delay_seconds=None))


class SaysThatItCreatedWhatWasThere(Sound):
    async def create(self, flow: NewFlow) -> FlowRecord | None:
        await super().create(flow)
        return None


class TakesEveryNewFlowForTheFirstOfItsId(Sound):
    async def create_claimed(self, flows: Sequence[NewFlow]) -> list[ClaimedFlow | FlowRecord | None]:
        return [
            answer._replace(flow=answer.flow._replace(epoch=1), lease=answer.lease._replace(epoch=1))
            if isinstance(answer, ClaimedFlow)
            else answer
            for answer in await super().create_claimed(flows)
        ]


class ActsWhateverTheStatus(Sound):
    async def move(
        self,
        flow_id: str,
        target: TaskStatus,
        *,
        reason: str = "",
        output: str | None = None,
        only: Collection[TaskStatus] | None = None,
    ) -> FlowRecord:
        return await super().move(flow_id, target, reason=reason, output=output)


class LeavesTheInboxOfDeletedFlows(Sound):
    def __init__(self) -> None:
        super().__init__()
        self._left: dict[str, list[Received]] = {}

    async def delete(self, flow_id: str) -> bool:
        self._left[flow_id] = await super().inbox(flow_id)
        return await super().delete(flow_id)

    async def inbox(self, flow_id: str) -> list[Received]:
        return self._left.get(flow_id, []) + await super().inbox(flow_id)


# -- leases --------------------------------------------------------------------------------------------------


class ClaimsOtherwise(Sound):
    async def claim(self, request: ClaimRequest) -> list[ClaimedFlow]:
        return await super().claim(self.changed(request))

    def changed(self, request: ClaimRequest) -> ClaimRequest:
        raise NotImplementedError


class IgnoresTags(ClaimsOtherwise):
    def changed(self, request: ClaimRequest) -> ClaimRequest:
        return replace(request, tags=("a", "b", "big", "c", "gpu", "x", "y", *request.tags))


class IgnoresVersions(ClaimsOtherwise):
    def changed(self, request: ClaimRequest) -> ClaimRequest:
        return replace(request, versions=None)


class IgnoresQueues(ClaimsOtherwise):
    def changed(self, request: ClaimRequest) -> ClaimRequest:
        return replace(request, queues=("default", "gpu", "q", "r", *request.queues))


class TakesOneTooMany(ClaimsOtherwise):
    def changed(self, request: ClaimRequest) -> ClaimRequest:
        return replace(request, limit=request.limit + 1)


class NeverParksWhatKillsWorkers(ClaimsOtherwise):
    def changed(self, request: ClaimRequest) -> ClaimRequest:
        return replace(request, claims_stalled_max=2**31)


class ReversesClaims(Sound):
    async def claim(self, request: ClaimRequest) -> list[ClaimedFlow]:
        return (await super().claim(request))[::-1]


class ForgetsMessagesOfClaims(Sound):
    async def claim(self, request: ClaimRequest) -> list[ClaimedFlow]:
        return [one._replace(inbox=[]) for one in await super().claim(request)]


class RenewsTheDead(Sound):
    async def renew(
        self, worker_id: str, *, lease_seconds: float, doing: dict[str, str] | None = None
    ) -> float:
        try:
            return await super().renew(worker_id, lease_seconds=lease_seconds, doing=doing)
        except LeaseLost:
            return self.now() + lease_seconds


class DisownsEverything(Sound):
    async def disown(self, worker_id: str, known: Sequence[tuple[str, int]]) -> Sequence[str]:
        return await super().disown(worker_id, [])


# -- catalog and hints ---------------------------------------------------------------------------------------


class ReadsHistoriesFromTheStart(Sound):
    async def history(self, flow_id: str, *, after: int = 0, limit: int | None = None) -> list[Event]:
        return await super().history(flow_id, limit=limit)


class ReversesInboxes(Sound):
    async def inbox(self, flow_id: str) -> list[Received]:
        return (await super().inbox(flow_id))[::-1]


class LosesArrivals(Sound):
    async def arrivals(self, worker_id: str, after: int) -> tuple[int, list[Received]]:
        cursor, messages = await super().arrivals(worker_id, after)
        return cursor + 1, messages


class LosesNothing(Sound):
    async def lost(
        self, worker_id: str, epochs: Sequence[tuple[str, int]]
    ) -> list[tuple[str, TaskStatus | None]]:
        return []


class CountsEverything(Sound):
    async def count(self, where: FlowFilter) -> dict[TaskStatus, int]:
        return await super().count(FlowFilter(statuses=where.statuses))


class RepeatsPages(Sound):
    async def list(
        self, where: FlowFilter, *, limit: int = 100, after: str | None = None
    ) -> tuple[list[FlowRecord], str | None]:
        flows, key = await super().list(where, limit=limit, after=after)
        return flows, None if key is None else str(int(key) + 1)


class WakesForAnyName(Sound):
    async def next_wake(self, names: Sequence[str]) -> float | None:
        return await super().next_wake([*names, "order", "a", "b"])


class AlwaysNew(Sound):
    @property
    def is_new(self) -> bool:
        return True


class NeverHints(Sound):
    def subscribe(self, listener: Callable[[Hint], None]) -> Callable[[], None]:
        return lambda: None


class AnswersThoughClosed(Sound):
    async def find(self, flow_id: str) -> FlowRecord | None:
        try:
            return await super().find(flow_id)
        except LogClosed:
            return None
