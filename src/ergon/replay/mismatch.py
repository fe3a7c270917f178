"""Whether a flow's code still fits its history, and the error that says where it does not.

The machine keeps what was asked for and what is on its way; here it is judged. Three things may differ: the flow asks
for something else than the history answers, the history answers what the flow has not asked for, or the flow ends
before its history does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

from ergon.core.history import Event, EventKind
from ergon.errors import NonDeterminismError
from ergon.replay.loop import FlowTimer
from ergon.replay.mailbox import Mailbox
from ergon.replay.operations import EXPECTED_KIND, Operation, OperationKind, Place, describe_event, place_text

WAITS_TOLD_MAX = 5
"""More of what a flow waits for than this does not help to read the error."""


def fits(op: Operation, event: Event) -> bool:
    """Whether the event answers what the flow asks for."""
    if EXPECTED_KIND.get(event.kind) != op.kind or event.name != op.name:
        return False
    return event.digest == op.digest or not event.digest or not op.digest


def asked_otherwise(op: Operation, event: Event) -> NonDeterminismError:
    """The flow asks for something else than the event answers."""
    same = EXPECTED_KIND.get(event.kind) == op.kind and event.name == op.name
    actual = f"{op}, with other arguments" if same else str(op)
    return NonDeterminismError(
        expected=describe_event(event), actual=actual, seq=event.seq, advice=_renamed(op, event)
    )


def begun_otherwise(op: Operation, event: Event) -> NonDeterminismError:
    """The flow asks for something else than the step that it began there, which has no answer yet."""
    return asked_otherwise(op, event._replace(kind=EventKind.STEP_COMPLETED, op=op.id))


_DECORATORS: Final = {OperationKind.STEP: "step", OperationKind.CHILD: "flow"}


def _renamed(op: Operation, event: Event) -> str:
    """What to do when the operation is the same under another name; nothing when it cannot be."""
    decorator = _DECORATORS.get(op.kind)
    if decorator is None or EXPECTED_KIND.get(event.kind) != op.kind or event.name == op.name:
        return ""
    return f'If `{event.name}` was only renamed, keep its old name in the log: `@{decorator}(name="{event.name}")`.'


def never_asked(event: Event, waits: str) -> NonDeterminismError:
    """The flow does not wait for what the event answers, but for something else."""
    return NonDeterminismError(expected=describe_event(event), actual=waits, seq=event.seq)


def ended_early(event: Event, entered_at: Place | None) -> NonDeterminismError:
    """The flow has ended, and did not ask for what the event answers."""
    ended = f"nothing: the flow that begins at {place_text(entered_at)} has ended"
    return NonDeterminismError(expected=describe_event(event), actual=ended, seq=event.seq)


def waits_text(
    pending: Iterable[Operation],
    timers: Iterable[FlowTimer],
    mailboxes: Iterable[Mailbox],
    entered_at: Place | None,
) -> str:
    """What a flow waits for, in the words of the error."""
    waits = [str(op) for op in pending]
    waits += [str(timer) for timer in timers]
    waits += [f"signal `{box.name}` ({waiter.source})" for box in mailboxes for waiter in box.waiters]
    if not waits:
        return f"nothing (the flow begins at {place_text(entered_at)})"
    return "; ".join(waits[:WAITS_TOLD_MAX])


def first_unasked(events: Iterable[Event], asked: AbstractSet[str]) -> Event | None:
    """The first event whose operation is not among those that the flow has asked for; None when there is none."""
    return next((event for event in events if event.op and event.op not in asked), None)


def been_past(ahead: Iterable[Event], asked: AbstractSet[str], mailboxes: Mapping[str, Mailbox]) -> bool:
    """Whether what lies ahead in the history holds anything that the flow has not asked for yet.

    Answers to what was asked for earlier prove nothing: they may have shared a commit with the event that led here,
    whose own turn was then lost in a crash.
    """
    signals = Counter(event.name for event in ahead if event.kind == EventKind.SIGNAL_RECEIVED)
    for name, count in signals.items():
        box = mailboxes.get(name)
        if box is None or count > box.wanted() + box.withdrawn:
            return True
    return first_unasked(ahead, asked) is not None
