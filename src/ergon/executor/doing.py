"""Notice which flows in memory stand still, and tell what each does or waits for.

What a flow does is not written down while it moves: that would be a write for each step. One that has not moved from
one look to the next is told, once; a reader sees by the flow's history what is over since. A look costs about a
microsecond a flow, and what it finds goes into a commit with others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ergon.executor.run import FlowRun

TOLD_MAX: Final = 100
"""Flows told at one look; the others are told at the next ones."""


class Doing:
    """What the flows of one incarnation do: those that have not moved since the last look, until it is written down."""

    def __init__(self, runs: Callable[[], Iterable[FlowRun]]) -> None:
        self._runs = runs
        self._seen: dict[str, tuple[object, bool]] = {}

    def look(self) -> dict[str, str]:
        """What to write down now, by flow id."""
        seen, self._seen = self._seen, {}
        told: dict[str, str] = {}
        for run in self._runs():
            moves = (run.work.turns, len(run.work.bodies), run.work.idle_since)
            moves_seen, is_told = seen.get(run.flow_id, (None, False))
            stands = moves_seen == moves
            if stands and not is_told and len(told) < TOLD_MAX:
                told[run.flow_id] = run.waits()
            self._seen[run.flow_id] = (moves, stands and is_told)
        return told

    def landed(self, told: Iterable[str]) -> None:
        """What the last look gave for these flows is in the log. What may not be is told again, which is safe."""
        for flow_id in told:
            moves, _ = self._seen[flow_id]
            self._seen[flow_id] = (moves, True)
