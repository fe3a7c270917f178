"""Count what ran and what was kept: the ledger says which bodies began, the log says which steps are committed.

Decisions only: what goes in are lines and events, what comes out are numbers and what contradicts the promises.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from ergon.core.history import Event, EventKind
from ergon.demo.ledger import Line


@dataclass
class Tally:
    """The claim the demo makes at its end."""

    committed: int = 0
    """Steps with a result in the log."""
    begun: int = 0
    """Step bodies that began, by the ledger."""
    bodies: set[str] = field(default_factory=set)
    """Steps of which a body began."""
    repeated: list[str] = field(default_factory=list)
    """Steps whose body began more than once: each was open when its process died."""
    committed_twice: list[str] = field(default_factory=list)
    """Must be empty."""
    ran_after_commit: list[str] = field(default_factory=list)
    """Must be empty."""
    repeated_alive: list[str] = field(default_factory=list)
    """Must be empty: a body that began twice in one process, which nobody had killed."""
    without_body: list[str] = field(default_factory=list)
    """Must be empty: a result for which no body began."""

    @property
    def holds(self) -> bool:
        """True when no promise was broken."""
        return not (self.committed_twice or self.ran_after_commit or self.repeated_alive or self.without_body)


class Books:
    """The ledger and the log, side by side."""

    def __init__(self) -> None:
        self.begins: dict[str, list[Line]] = {}
        """By idempotency key."""
        self.ended: set[str] = set()
        self.committed: dict[str, list[float]] = {}
        """When each step was committed, by idempotency key: one time each, if all is well."""
        self._steps_of: dict[str, int] = {}

    def add_lines(self, lines: Iterable[Line]) -> None:
        """Enter what the ledger says."""
        for line in lines:
            if line.event == "begin":
                self.begins.setdefault(line.key, []).append(line)
            else:
                self.ended.add(line.key)

    def add_events(self, flow_id: str, events: Iterable[Event]) -> None:
        """Enter what a flow's history says."""
        for event in events:
            if event.kind == EventKind.STEP_COMPLETED:
                self.committed.setdefault(f"{flow_id}/{event.op}", []).append(event.at)
                self._steps_of[flow_id] = self._steps_of.get(flow_id, 0) + 1

    def steps_of(self, flow_id: str) -> int:
        """How many steps of a flow are committed."""
        return self._steps_of.get(flow_id, 0)

    def open_in(self, process: str) -> list[Line]:
        """Bodies that this process began and whose result is not committed."""
        return [
            lines[-1]
            for key, lines in self.begins.items()
            if lines[-1].process == process and key not in self.committed
        ]

    def tally(self) -> Tally:
        """Compare the two."""
        found = Tally(
            committed=len(self.committed),
            begun=sum(len(lines) for lines in self.begins.values()),
            bodies=set(self.begins),
            committed_twice=[key for key, times in self.committed.items() if len(times) > 1],
            without_body=[key for key in self.committed if key not in self.begins],
        )
        for key, lines in self.begins.items():
            if len(lines) > 1:
                found.repeated.append(_described(lines[0]))
                if len({line.process for line in lines}) < len(lines):
                    found.repeated_alive.append(_described(lines[0]))
            # Ledger and log are written on one machine, by one clock.
            if key in self.committed and lines[-1].at > self.committed[key][0]:
                found.ran_after_commit.append(_described(lines[-1]))
        return found


def _described(line: Line) -> str:
    return f"{line.name} {line.about}".strip()
