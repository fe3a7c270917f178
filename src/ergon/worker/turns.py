"""Flows whose workers died one after the other: they begin one by one, so that a killer takes few others with it.

A worker claims many flows at once. When one of them kills the process before the others have recorded anything, the
next worker claims the same flows, and dies the same way. So a flow that has met two such deaths in a row begins in its
turn: a little after the flows that have not, and after the one before it has recorded something, has ended, waits, or
has lived for a while. The order is by chance, first of the flows' names and then among those of one name: whoever
comes before the killer records something and needs no turn any more, and many killers of one kind count as one. The
killer is what is left, and is parked (`WorkerOptions.claims_stalled_max`).

Nothing is written here, so a crash leaves what a claim left: flows of a dead worker, for the next one.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Final

from ergon.executor.host import Host
from ergon.executor.run import FlowRun

logger = logging.getLogger("ergon.worker")

DEATHS: Final = 2
"""A flow takes turns from so many deaths in a row on. One is what any crash and any power cut leaves."""
ALONE_SECONDS: Final = 0.25
"""How long one that records nothing keeps the next one waiting: a fault in native code kills at once."""
ALL_SECONDS: Final = 30.0
"""All have begun so long after the last of them came, however many they are."""
LOOK_SECONDS: Final = 0.05


class Turns:
    """Who begins next, and when."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: list[FlowRun] = []
        self._all_by = 0.0
        """When all have begun, by the event loop's clock."""
        self._begun: FlowRun | None = None
        """Who began last, while it keeps the others waiting."""
        self._next_at = 0.0
        """When it keeps them waiting no more, whatever it does."""
        self._next_look: asyncio.TimerHandle | None = None

    def add(self, run: FlowRun) -> None:
        """Begin this flow when it is its turn."""
        self._waiting.append(run)
        self._all_by = self._host.loop.time() + ALL_SECONDS
        if self._next_look is None:
            self._look_later()

    def give_back(self) -> None:
        """The worker drains: flows that have not begun go on elsewhere. None of their code runs here."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        waiting, self._waiting, self._begun = self._waiting, [], None
        for run in waiting:
            run.give_back()

    def _look_later(self) -> None:
        self._next_look = self._host.loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._next_look = None
        self._waiting = [run for run in self._waiting if not run.ended]
        now = self._host.loop.time()
        if self._begun is not None and (_shows_life(self._begun) or now >= self._next_at):
            self._begun = None
        if self._waiting and self._begun is None:
            self._begin_some(now)
        if self._waiting or self._begun is not None:
            self._look_later()

    def _begin_some(self, now: float) -> None:
        """Begin one, or as many as it takes for all to have begun in time."""
        looks_left = max(self._all_by - now, LOOK_SECONDS) / LOOK_SECONDS
        for _ in range(math.ceil(len(self._waiting) / looks_left)):
            self._begin_one()
        share = (self._all_by - now) / (len(self._waiting) + 1)
        self._next_at = now + min(ALONE_SECONDS, share)

    def _begin_one(self) -> None:
        rng = self._host.rng
        name = rng.choice(sorted({run.record.name for run in self._waiting}))
        run = rng.choice([run for run in self._waiting if run.record.name == name])
        self._waiting.remove(run)
        self._begun = run
        logger.warning(
            "flow %s: %d workers in a row have died before they recorded anything of it; perhaps it kills them, and "
            "begins apart from others like it",
            run.flow_id,
            run.record.claims_stalled,
            extra={"flow_id": run.flow_id},
        )
        run.start()


def _shows_life(run: FlowRun) -> bool:
    """Whether it has recorded something here, has ended, or waits for nothing that runs here."""
    return run.ended or run.work.turns > 0 or run.work.idle_since is not None
