"""The flows in a worker's memory: adopt, hand them their messages, evict those that can only wait, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from ergon.core.commit import ClaimedFlow, Hint, Received, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LogClosed, StoreError
from ergon.executor.doing import Doing
from ergon.executor.failure_lines import failure_line
from ergon.executor.host import Host
from ergon.executor.idleness import Look
from ergon.executor.run import FlowRun
from ergon.storage.log import ExecutionLog
from ergon.worker.registry import FlowRegistry
from ergon.worker.turns import DEATHS, Turns

logger = logging.getLogger("ergon.worker")

STEP_WAIT_EVICT_SECONDS: Final = 60.0
"""A flow whose step body waits durably is evicted only after this: the body runs again from its start then."""

DRAIN_LOOK_SECONDS: Final = 0.1

SWEPT_AT_ONCE: Final = 100
"""More flows than this are not let go in one turn of the event loop: some ten milliseconds."""

_CHUNK: Final = 500


class Residents:
    """Flows owned by this worker."""

    def __init__(
        self,
        log: ExecutionLog,
        host: Host,
        registry: FlowRegistry,
        *,
        capacity: int,
        evict_after_seconds: float,
    ) -> None:
        self.runs: dict[str, FlowRun] = {}
        self._log = log
        self._host = host
        self._registry = registry
        self._capacity = capacity
        self._evict_after = evict_after_seconds
        self._owner = ""
        self._cursor = 0
        self._fetching: asyncio.Task[None] | None = None
        self._fetch_again = False
        self._claims = 0
        self._reserved = 0
        self._doubts = self._doubts_met = 0
        """Hints that a flow here may have been taken away; and how many of them a look has met."""
        self.doing = Doing(self.runs.values)
        """What they do or wait for, for the log."""
        self._early: dict[str, list[Received]] = {}
        """By flow id, what came while something was being claimed: perhaps this flow, whose run is not here yet."""
        self._emptied: asyncio.Event = asyncio.Event()
        self._on_room: Callable[[], None] = lambda: None
        self._turns = Turns(host)
        self._on_end = self._ended  # bound once for all flows

    def belong_to(self, owner: str, on_room: Callable[[], None]) -> None:
        """Start over under a new incarnation; `on_room` is called when a flow leaves."""
        self._owner, self._cursor = owner, 0
        self._early.clear()
        self._on_room = on_room

    @property
    def room(self) -> int:
        """How many more flows fit."""
        return self._capacity - len(self.runs) - self._reserved

    def surely_runs(self, flow_id: str) -> bool:
        """True when the flow is here, and nobody has taken it away as far as the log has told."""
        return self._doubts == self._doubts_met and flow_id in self.runs

    @property
    def expects_new(self) -> bool:
        """True while flows are being created that are this worker's from the start."""
        return self._reserved > 0

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Claim and adopt inside: messages that arrive meanwhile reach the flows that the claim brings."""
        self._claims += 1
        try:
            yield
        finally:
            self._claims -= 1
            if not self._claims:
                self._early.clear()  # all that was claimed is here, and hears of what comes from now on

    @contextmanager
    def reserving(self, count: int) -> Iterator[None]:
        """Create flows as this worker's own inside, and adopt them: keeps room for so many."""
        self._reserved += count
        try:
            with self.expecting():
                yield
        finally:
            self._reserved -= count
            self._on_room()  # perhaps less came than there was room kept for

    def adopt(self, claimed: ClaimedFlow) -> None:
        """Take a claimed flow in and start it, with what came for it while it was being claimed."""
        flow_id = claimed.flow.id
        early = self._early.pop(flow_id, ())
        if fresh := [message for message in early if message.id > claimed.inbox_seen]:
            known = {message.id for message in claimed.inbox}
            fresh = [message for message in fresh if message.id not in known]
            claimed = claimed._replace(inbox=[*claimed.inbox, *fresh])
        stale = self.runs.get(flow_id)
        if stale is not None:
            # By this very incarnation, which is alive: somebody has paused and resumed the flow in the meantime.
            stale.abort("the flow was claimed again", logging.INFO)
        run = FlowRun(claimed, self._registry[claimed.flow.name], self._host, on_end=self._on_end)
        self.runs[flow_id] = run
        if claimed.flow.claims_stalled < DEATHS:
            run.start()
        else:
            self._turns.add(run)

    def _ended(self, run: FlowRun, settled: Settled | None) -> None:
        if settled is not None and settled.status is TaskStatus.FAILED:
            what = failure_line(settled.output)
            logger.warning("flow %s failed: %s", run.flow_id, what, extra={"flow_id": run.flow_id})
        if self.runs.get(run.flow_id) is run:
            del self.runs[run.flow_id]
            self._on_room()
        if not self.runs:
            self._emptied.set()

    # -- messages --------------------------------------------------------------------------------------

    def on_hint(self, hint: Hint) -> None:
        """Fetch messages when one may be for a flow here."""
        # Flows that this worker lets go are not here any more when their hint comes; one that is being claimed, or
        # created as its own, is not here yet.
        let_go = hint.settled
        if hint.elsewhere or (let_go and (self._claims or not self.runs.keys().isdisjoint(let_go))):
            self._doubts += 1
        if hint.elsewhere or hint.inbox:  # perhaps for a flow that is being claimed right now
            self.fetch_soon()

    def fetch_soon(self) -> None:
        """Fetch messages, or once more when a fetch is under way."""
        if self._fetching is not None and not self._fetching.done():
            self._fetch_again = True
            return
        if self._owner:
            self._fetching = self._host.loop.create_task(self._fetch(self._owner), name="ergon-inbox")
            self._fetching.add_done_callback(_tell_failure)

    async def fetch(self) -> None:
        """Hand every new message to its flow. Whoever calls, one fetch runs at a time."""
        self.fetch_soon()
        if (fetching := self._fetching) is not None:
            await asyncio.wait({fetching})
            if not fetching.cancelled() and isinstance(error := fetching.exception(), LogClosed):
                raise error

    async def _fetch(self, owner: str) -> None:
        while True:
            self._fetch_again = False
            cursor, messages = await self._log.arrivals(owner, self._cursor)
            if owner != self._owner:
                return
            self._cursor = cursor
            by_flow: dict[str, list[Received]] = {}
            for message in messages:
                by_flow.setdefault(message.flow_id, []).append(message)
            for flow_id, batch in by_flow.items():
                run = self.runs.get(flow_id)
                if run is not None:
                    run.receive(batch)
                # The flow may be ours in the log while the claim has not come back. Also one that is here may be
                # claimed at this moment, because this run of it is void: then they are for the next.
                if self._claims:
                    self._keep_early(flow_id, batch)
            if not self._fetch_again:
                return

    def _keep_early(self, flow_id: str, batch: list[Received]) -> None:
        held = self._early.setdefault(flow_id, [])
        newest = held[-1].id if held else 0
        held += [message for message in batch if message.id > newest]

    async def drop_lost(self) -> None:
        """Forget flows that were paused, killed or taken over: their running steps are cancelled.

        Asked for at each poll and not upon hints: with a busy log those come a hundred times a second.
        """
        owner, doubts, is_all = self._owner, self._doubts, not self._claims
        here = [(flow_id, run.record.epoch) for flow_id, run in self.runs.items()]
        for start in range(0, len(here), _CHUNK):
            chunk = here[start : start + _CHUNK]
            epochs = dict(chunk)
            for flow_id, status in await self._log.lost(owner, chunk):
                run = self.runs.get(flow_id)
                if run is None or run.record.epoch != epochs[flow_id]:
                    continue
                if status is TaskStatus.RUNNING and self._claims:
                    continue  # perhaps by a claim of ours whose answer is on its way; the next look will tell
                run.taken_away(status)
        if is_all:  # else one that was taken away may have come here since
            self._doubts_met = doubts

    async def disown_unknown(self) -> None:
        """Give back flows that are this worker's in the log though they never came here. While nothing is claimed."""
        known = [(flow_id, run.record.epoch) for flow_id, run in self.runs.items()]
        for flow_id in await self._log.disown(self._owner, known):
            logger.warning(
                "flow %s was claimed here by a write whose answer was lost, or could not be let go; it is given back",
                flow_id,
            )

    # -- leaving memory ----------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Evict flows that have only waited for a while and will go on doing so, a few in each turn of the loop."""
        waiting = self._waiting(self._evict_after)
        for start in range(0, len(waiting), SWEPT_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            look = Look()
            for since, run in waiting[start : start + SWEPT_AT_ONCE]:
                if run.work.idle_since == since:  # it has not done anything meanwhile
                    run.suspend(look)

    def make_room(self, count: int) -> None:
        """Let go up to `count` flows that can only wait, at once; the longest-waiting first."""
        look = Look()
        for _, run in self._waiting(0.0)[:count]:
            run.suspend(look)

    def _waiting(self, idle_seconds: float) -> list[tuple[float, FlowRun]]:
        """Those that have waited this long, and since when; the longest-waiting first."""
        now, log_now = self._host.loop.time(), self._log.now()
        # Room is needed now, for flows that may be what these wait for.
        patience = STEP_WAIT_EVICT_SECONDS if idle_seconds else self._evict_after
        waiting: list[tuple[float, FlowRun]] = []
        for run in self.runs.values():
            since = run.work.idle_since
            if since is None or now - since < (patience if run.work.bodies else idle_seconds):
                continue
            wake_at = run.wake_at
            if wake_at is None or wake_at - log_now > self._evict_after:
                waiting.append((since, run))
        waiting.sort(key=lambda pair: pair[0])
        return waiting

    async def drain(self, deadline_seconds: float) -> int:
        """Let every flow go: at once if it waits, after its running steps otherwise, at the deadline in any case.

        Returns how many had to be interrupted in a step.
        """
        self._host.draining = True
        self._emptied.clear()
        self._turns.give_back()
        look = Look()
        for run in list(self.runs.values()):
            run.drain(look)
        if not self.runs:
            return 0
        try:
            async with asyncio.timeout(deadline_seconds):
                await self._all_let_go()
        except TimeoutError:
            left = list(self.runs.values())
            interrupted = sum(1 for run in left if run.work.bodies)
            self._emptied.clear()
            look = Look()
            for run in left:
                run.give_back(look)
            try:
                async with asyncio.timeout(5):
                    await self._emptied.wait()
            except TimeoutError:
                logger.warning(
                    "%d flows could not be given back in time; their lease ends with the worker",
                    len(self.runs),
                )
            return interrupted
        return 0

    async def _all_let_go(self) -> None:
        while not self._emptied.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_LOOK_SECONDS):
                    await self._emptied.wait()
            # A body that computed beside a durable wait may be done by now, which nothing tells.
            look = Look()
            for run in [run for run in self.runs.values() if run.work.idle_since is not None]:
                run.drain(look)

    def abort_all(self, why: str) -> None:
        """The lease is lost, or the worker ends: forget every flow."""
        if self._fetching is not None:
            self._fetching.cancel()
            self._fetching = None
        for run in list(self.runs.values()):
            run.abort(why)


def _tell_failure(fetching: asyncio.Task[None]) -> None:
    if fetching.cancelled() or (error := fetching.exception()) is None or isinstance(error, LogClosed):
        return
    if isinstance(error, StoreError):
        logger.warning("could not fetch messages (%s); the next poll will", error)
    else:
        logger.error("could not fetch messages; the next poll will", exc_info=error)
