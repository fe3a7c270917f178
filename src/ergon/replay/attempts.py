"""What earlier attempts of a retried flow came to, which the present one does not do again.

A flow that raised and is tried again starts from its entry, with a history of its own. What the attempts before it
completed answers the same operations, by operation id; signals they received are received again; and a child that
failed in one of them gets a successor, which needs another flow id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from ergon.core.history import Event, EventKind

SEEN_AGAIN: Final = "again"
"""Digest of a signal's event that repeats one from an earlier attempt of the flow."""

_REUSABLE: Final = frozenset({EventKind.STEP_COMPLETED, EventKind.CHILD_COMPLETED, EventKind.TIMER_FIRED})


class EarlierAttempts:
    """The attempts of a flow before the present one."""

    __slots__ = ("children_failed", "completed", "count", "present_began", "signals")

    def __init__(self) -> None:
        self.count = 0
        self.present_began: float | None = None
        """By the log's clock, where the history tells: when it was tried again, or told not to wait any longer."""
        self.completed: dict[str, Event] = {}
        """Completed operations, by operation id."""
        self.signals: dict[str, deque[Event]] = {}
        """By name, those that the present attempt has not received again yet; taken from the left."""
        self.children_failed: dict[str, int] = {}
        """How many children an operation had that failed; the next one needs an id of its own."""

    def split_off(self, history: Sequence[Event]) -> Sequence[Event]:
        """Learn what earlier attempts came to; returns the events of the present one."""
        start, began = 0, None
        for index, event in enumerate(history):
            if event.kind == EventKind.FLOW_RETRIED:
                start = index + 1
                self.count += 1
                began = event.at
            elif event.kind == EventKind.RETRY_NOW and start == index:
                began = event.at  # it did not wait
        self.present_began = began
        for event in history[:start]:
            self._learn(event)
        return history[start:]

    def _learn(self, event: Event) -> None:
        if event.kind in _REUSABLE:
            self.completed[event.op] = event
        elif event.kind == EventKind.CHILD_FAILED:
            self.children_failed[event.op] = self.children_failed.get(event.op, 0) + 1
        elif event.kind == EventKind.SIGNAL_RECEIVED and event.digest != SEEN_AGAIN:
            self.signals.setdefault(event.name, deque()).append(event)
