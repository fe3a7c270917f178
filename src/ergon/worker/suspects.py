"""Flows whose workers died one after the other: they begin one by one, so that a killer takes no others with it.

A worker claims many flows at once. When one of them kills the process before the others have recorded anything, the
next worker claims the same flows, and dies the same way. So a flow that has met two such deaths in a row begins here:
a little after the flows that have not, and after the suspect before it has recorded something, has ended, waits, or
has lived for a while. The order is by chance: who comes before the killer gets something recorded and is suspected no
more. The killer is the one that is left, and is parked (`WorkerOptions.claims_stalled_max`).

Nothing is written here, so a crash leaves what a claim left: flows of a dead worker, for the next one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ergon.executor.host import Host
from ergon.executor.run import FlowRun

logger = logging.getLogger("ergon.worker")

DEATHS: Final = 2
"""A flow is suspected from so many deaths in a row on. One is what any crash and any power cut leaves."""
ALONE_SECONDS: Final = 1.0
"""How long a suspect that records nothing keeps the next one waiting: a fault in native code kills at once."""
ALL_SECONDS: Final = 60.0
"""All have begun after this time, however many they are."""
_LOOK_SECONDS: Final = 0.05


class Suspects:
    """Begins them in turn."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: list[FlowRun] = []
        self._begun: FlowRun | None = None
        self._begun_at = 0.0
        self._next_look: asyncio.TimerHandle | None = None

    def add(self, run: FlowRun) -> None:
        """Begin this flow when it is its turn."""
        self._waiting.append(run)
        if self._next_look is None:
            self._look_later()

    def begin_all(self) -> None:
        """Wait no longer: the worker drains, and a flow is let go where it has begun."""
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None
        waiting, self._waiting, self._begun = self._waiting, [], None
        for run in waiting:
            run.start()

    def _look_later(self) -> None:
        self._next_look = self._host.loop.call_later(min(_LOOK_SECONDS, self._share), self._look)

    @property
    def _share(self) -> float:
        return ALL_SECONDS / len(self._waiting)

    def _look(self) -> None:
        self._next_look = None
        self._waiting = [run for run in self._waiting if not run.ended]
        if not self._waiting:
            self._begun = None
            return
        if self._is_over():
            self._begin_next()
        if self._waiting:
            self._look_later()

    def _is_over(self) -> bool:
        """Whether the suspect that began last keeps the others waiting no more."""
        run = self._begun
        if run is None or run.ended or run.work.turns or run.work.idle_since is not None:
            return True
        return self._host.loop.time() - self._begun_at >= min(ALONE_SECONDS, self._share)

    def _begin_next(self) -> None:
        run = self._waiting.pop(self._host.rng.randrange(len(self._waiting)))
        self._begun, self._begun_at = run, self._host.loop.time()
        logger.warning(
            "flow %s: %d workers in a row have died before they recorded anything of it; perhaps it kills them, and "
            "begins apart from others like it",
            run.flow_id,
            run.record.claims_stalled,
            extra={"flow_id": run.flow_id},
        )
        run.start()
