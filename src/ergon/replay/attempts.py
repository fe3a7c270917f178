"""What earlier attempts of a retried flow came to, which the present one does not do again.

A flow that raised and is tried again starts from its entry, with a history of its own. What the attempts before it
completed answers the same operations, by operation id; and signals they received are received again. A child that is
still open is found again by an attempt that asks for the same. One that failed, was asked to cancel, or is another than
the present attempt asks for, gets a successor, which needs another flow id. All of this is decided by the history, so
that a replay of the present attempt asks for the same flow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from ergon.core.history import Event, EventKind

SEEN_AGAIN: Final = "again"
"""Digest of a signal's event that repeats one from an earlier attempt of the flow."""

_REUSABLE: Final = frozenset({EventKind.STEP_COMPLETED, EventKind.CHILD_COMPLETED, EventKind.TIMER_FIRED})


_OF_CHILDREN: Final = frozenset(
    {EventKind.CHILD_COMPLETED, EventKind.CHILD_FAILED, EventKind.CHILD_OPEN, EventKind.ABANDONED}
)
_SPENT: Final = frozenset({EventKind.CHILD_FAILED, EventKind.ABANDONED})
"""After these another attempt gets another child."""


class _Child(NamedTuple):
    """The last child that an operation had in earlier attempts."""

    number: int
    name: str
    digest: str
    is_spent: bool


class EarlierAttempts:
    """The attempts of a flow before the present one."""

    __slots__ = ("_children", "abandoned", "completed", "count", "present_began", "signals")

    def __init__(self) -> None:
        self.count = 0
        self.present_began: float | None = None
        """By the log's clock, where the history tells: when it was tried again, or told not to wait any longer."""
        self.completed: dict[str, Event] = {}
        """Completed operations, by operation id."""
        self.signals: dict[str, deque[Event]] = {}
        """By name, those that the present attempt has not received again yet; taken from the left."""
        self.abandoned: dict[str, int] = {}
        """In how many attempts the flow stopped waiting for an operation: the children of a step are others then."""
        self._children: dict[str, _Child] = {}

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

    def child_number(self, op: str, name: str, digest: str) -> int:
        """Which of an operation's children it is that the present attempt asks for, from 0."""
        last = self._children.get(op) if self._children else None
        if last is None:
            return 0
        is_last = not last.is_spent and (last.name, last.digest) == (name, digest)
        return last.number if is_last else last.number + 1

    def _learn(self, event: Event) -> None:
        if event.kind in _OF_CHILDREN:
            number = self.child_number(event.op, event.name, event.digest)
            self._children[event.op] = _Child(number, event.name, event.digest, event.kind in _SPENT)
        if event.kind == EventKind.ABANDONED:
            self.abandoned[event.op] = self.abandoned.get(event.op, 0) + 1
        if event.kind in _REUSABLE:
            self.completed[event.op] = event
        elif event.kind == EventKind.SIGNAL_RECEIVED and event.digest != SEEN_AGAIN:
            self.signals.setdefault(event.name, deque()).append(event)
