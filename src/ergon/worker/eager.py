"""Start flows that this process creates without claiming them: see `storage/eager.py`.

What a crash leaves behind: before the flows are durable, nothing. After it, flows that a dead worker owns, which the
reaper frees, as after a claim. An answer that is lost leaves flows that the worker owns in the log and does not run: it
gives them back when it next looks for such. One that comes when the worker has begun to drain gives them back at once.

Whoever schedules lends nothing to what it starts: flows and steps run in the context in which the worker was started,
as those that it claims.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from contextvars import copy_context
from typing import Final

from ergon.core.commit import ClaimedFlow, ClaimRequest, FlowRecord, NewFlow, given_back
from ergon.core.versions import VersionSet
from ergon.errors import LeaseLost, LogDamaged
from ergon.executor.host import Host
from ergon.executor.incarnation import Incarnation
from ergon.storage.answers import hear_error
from ergon.worker.claimer import CLAIM_BATCH_MAX, Claimer
from ergon.worker.residents import Residents

FIRST_LOOK_SECONDS: Final = 0.05
"""How long to wait for a worker that has just started to learn whether there is something to claim."""


class EagerStarts:
    """For one incarnation of a worker."""

    def __init__(
        self,
        host: Host,
        residents: Residents,
        claimer: Claimer,
        request: ClaimRequest,
        incarnation: Incarnation,
    ) -> None:
        """`request`: what the worker claims is what it starts."""
        self._host, self._residents, self._claimer = host, residents, claimer
        self._incarnation = incarnation
        self._context = copy_context()
        self._names, self._queues = frozenset(request.names), frozenset(request.queues)
        self._tags = frozenset(request.tags)
        self._versions = (
            VersionSet(all=True) if request.versions is None else VersionSet.parse(request.versions)
        )

    def takes(self, flows: Sequence[NewFlow]) -> bool:
        """True while there is room for all, and nothing in the log that has waited longer.

        Also while the worker has yet to find out, as `create` waits for that.
        """
        return (
            bool(flows)
            and self._fits(flows[0])
            and self._host.loop is asyncio.get_running_loop()
            and (self._claimer.has_nothing_to_claim or not self._claimer.looked.is_set())
            and self._has_room(len(flows))
        )

    def runs(self, flow_id: str) -> bool:
        """True while the worker surely has the flow, and this is the event loop where its end is told."""
        return self._host.loop is asyncio.get_running_loop() and self._residents.surely_runs(flow_id)

    def _has_room(self, count: int) -> bool:
        return not self._host.draining and self._residents.room >= count and self._incarnation.may_start()

    async def create(self, flows: Sequence[NewFlow]) -> list[FlowRecord | None]:
        """Create flows, and begin those that fit; also when whoever asked is cancelled meanwhile."""
        work, context = self._create(flows), self._context.copy()
        task = self._host.loop.create_task(work, name="ergon-eager-start", context=context)
        task.add_done_callback(hear_error)
        return await asyncio.shield(task)

    async def _create(self, flows: Sequence[NewFlow]) -> list[FlowRecord | None]:
        """Part by part: while one is being written, the flows of the part before it begin."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._claimer.looked.wait()
        answers: list[FlowRecord | None] = []
        failures: list[Exception] = []
        for start in range(0, len(flows), CLAIM_BATCH_MAX):
            try:
                answers += await self._create_part(flows[start : start + CLAIM_BATCH_MAX])
            except Exception as error:  # noqa: BLE001 - the others are created too, as `create_all` does
                failures.append(error)
        if failures:
            raise failures.pop(0)
        return answers

    async def _create_part(self, flows: Sequence[NewFlow]) -> list[FlowRecord | None]:
        log, owned = self._host.log, [*flows]
        # Those that there is no room for wait for it in the log, by priority.
        places = [place for place, flow in enumerate(flows) if self._fits(flow)]
        if not (self._claimer.has_nothing_to_claim and self._has_room(len(places))):
            return await log.create_all(flows)
        for place in places:
            owned[place] = flows[place].owned_by(self._incarnation.id)
        with self._residents.reserving(len(places)):
            try:
                return [self._adopt(answer) for answer in await log.create_claimed(owned)]
            except LeaseLost:  # declared dead this moment: what was created under it is freed with all it had
                return await log.create_all(flows)
            except LogDamaged:
                raise  # of one flow; the others were given back
            except Exception:
                self._claimer.disown_soon()  # it may have landed
                raise

    def _fits(self, flow: NewFlow) -> bool:
        return (
            flow.start_at is None
            and flow.delay_seconds is None
            and flow.name in self._names
            and flow.queue in self._queues
            and self._versions.matches(flow.version)
            and self._tags.issuperset(flow.tags)
        )

    def _adopt(self, answer: ClaimedFlow | FlowRecord | None) -> FlowRecord | None:
        if not isinstance(answer, ClaimedFlow):
            return answer
        if self._host.draining:
            self._host.log.submit(given_back(answer.flow.id, answer.lease), _tell_nobody)
        elif not self._incarnation.lost:
            self._residents.adopt(answer)
        return None


def _tell_nobody(_: BaseException | None) -> None:
    """What was not given back goes with the worker's lease."""
