"""What earlier runs of a flow recorded about steps that are still open, and about its present attempt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ergon.core.history import Event, EventKind, split_wait

_OF_OPEN_STEPS: Final = frozenset({EventKind.STEP_STARTED, EventKind.STEP_RETRIED, EventKind.STEP_WAITED})
_ENDS: Final = frozenset({EventKind.STEP_COMPLETED, EventKind.STEP_FAILED})

_OVER: Final = frozenset(
    {
        EventKind.STEP_COMPLETED,
        EventKind.STEP_FAILED,
        EventKind.CHILD_COMPLETED,
        EventKind.CHILD_FAILED,
        EventKind.ABANDONED,
    }
)


def read_earlier(history: Sequence[Event]) -> tuple[dict[str, list[Event]], tuple[Event, ...]]:
    """By operation, what the present attempt has to know; and how it was asked to cancel, oldest first.

    What earlier attempts of the flow recorded goes by call and not by operation: see `replay/attempts.py`.
    """
    earlier: dict[str, list[Event]] = {}
    cancels: list[Event] = []
    for event in history:
        kind = event.kind
        if kind in _OF_OPEN_STEPS:
            earlier.setdefault(split_wait(event.op)[0], []).append(event)
        elif kind in _ENDS:
            if earlier:
                earlier.pop(event.op, None)
        elif kind == EventKind.SIGNAL_RETURNED:
            kept = earlier.get(split_wait(event.op)[0], [])
            for each in [each for each in kept if each.op == event.op][-1:]:
                kept.remove(each)
        elif kind == EventKind.CANCEL_REQUESTED:
            cancels.append(event)
        elif kind == EventKind.FLOW_RETRIED:
            earlier.clear()
            cancels = []  # it was the attempt before that was asked to stop
        elif kind == EventKind.RETRY_NOW:
            earlier = {op: [_due_by(event.at, each) for each in events] for op, events in earlier.items()}
    return earlier, tuple(cancels)


def over_operations(history: Sequence[Event]) -> set[str]:
    """The operations of the present attempt that were answered, or abandoned together with their children."""
    over: set[str] = set()
    for event in history:
        if event.kind in _OVER:
            over.add(event.op)
        elif event.kind == EventKind.FLOW_RETRIED:
            over.clear()
    return over


def never_received(events: Sequence[Event], left_at: int) -> list[Event]:
    """The signals among the answered waits of a step's body that came too late for it.

    `left_at` is the event by which the flow stopped waiting for the step. A body's signals are the last events of their
    commit (see `Inbox`), so one that follows that event was not received, and one before it was, or went back.
    """
    return [
        event
        for event in events
        if event.kind == EventKind.STEP_WAITED
        and split_wait(event.op)[1].startswith("signal:")
        and event.seq > left_at
    ]


def begins_attempt(history: Sequence[Event]) -> bool:
    """Tell whether the flow is tried again and no earlier run came further than this."""
    kinds = [event.kind for event in history[-2:]]
    return kinds[-1:] == [EventKind.FLOW_RETRIED] or kinds == [EventKind.FLOW_RETRIED, EventKind.RETRY_NOW]


def _due_by(at: float, event: Event) -> Event:
    return event._replace(at=at) if event.kind == EventKind.STEP_RETRIED and event.at > at else event
