"""The states of a flow, and what a person may make of it in each. What workers do is in the logs' statements."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class TaskStatus(StrEnum):
    """Where a flow stands."""

    PENDING = "pending"
    """Ready: a worker that runs its code may claim it."""
    RUNNING = "running"
    """Owned by a worker, whether it computes or waits in memory."""
    SUSPENDED = "suspended"
    """Waiting for a timer, a signal or a child; in no worker's memory."""
    PAUSED = "paused"
    """Held back by a person until resumed."""
    PARKED = "parked"
    """Stopped without failing; needs a person or a deploy, then `resume`."""
    COMPLETED = "completed"
    """Returned."""
    FAILED = "failed"
    """Raised."""
    CANCELLED = "cancelled"
    """Cancelled before it returned, or killed."""

    @property
    def is_terminal(self) -> bool:
        """True when the flow has ended and its outcome will never change."""
        return self in TERMINAL


_S = TaskStatus
TERMINAL: Final = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED})

HELD: Final = frozenset({_S.PAUSED, _S.PARKED})
"""Waiting for a person to `resume` them."""

OPERATORS: Final[dict[TaskStatus, frozenset[TaskStatus]]] = {
    _S.PENDING: HELD | {_S.FAILED},  # never from RUNNING: that would take the flow from a worker in mid-step
    _S.PAUSED: frozenset({_S.PENDING, _S.RUNNING, _S.SUSPENDED}),
    _S.CANCELLED: frozenset(set(_S) - TERMINAL),
}
"""What a person may ask for, and of which flows."""


def may_move(current: TaskStatus, target: TaskStatus) -> bool:
    """Tell whether a person may make a flow `target` that is `current`."""
    return current in OPERATORS.get(target, ())
