"""The events of one flow: what its history is made of.

An event is one row. Rows are written in the order the flow saw them, never changed, and replayed in that order.
The tuple's fields are the columns, in the same order, in every log.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple


class Event(NamedTuple):
    """One row of a flow's history."""

    seq: int
    """1, 2, 3 ... without a gap within a flow."""
    kind: str
    """One of `EventKind`."""
    op: str
    """The durable operation this settles, such as `0/2:1`; empty where there is none."""
    name: str
    """What the operation is about: the step's, signal's or child flow's name."""
    digest: str
    """Digest of the operation's arguments, of a plain sleep its seconds; empty where it has none.

    In a retried flow `@` and the id of a call of an earlier attempt may follow: see `replay/attempts.py`.
    """
    payload: str | None
    """JSON: a result, a failure, a signal's value."""
    at: float
    """When, by the log's clock: seconds since 1970-01-01 UTC."""
    source: str
    """Where the flow's code asked for it: `file.py:42`."""
    attempt: int
    """Which attempt of a step this is, from 1; 0 where it does not apply."""


make_event: Final[Callable[[tuple[Any, ...]], Event]] = partial(tuple.__new__, Event)
"""`Event(*fields)`, in half the time: it is made once for every step of every flow."""


class EventKind:
    """The kinds of event. Those in `DELIVERED` change what the flow sees; the rest are kept beside it."""

    STEP_COMPLETED: Final = "step_completed"
    STEP_FAILED: Final = "step_failed"
    TIMER_FIRED: Final = "timer_fired"
    SIGNAL_RECEIVED: Final = "signal_received"
    CHILD_COMPLETED: Final = "child_completed"
    CHILD_FAILED: Final = "child_failed"
    CANCEL_REQUESTED: Final = "cancel_requested"
    STEP_STARTED: Final = "step_started"
    """An at-most-once step is about to run."""
    STEP_RETRIED: Final = "step_retried"
    """An attempt failed and another will follow: payload has the failure, `at` of the next attempt."""
    STEP_WAITED: Final = "step_waited"
    """A durable wait inside a step body was answered: `op` is the wait's, name and digest are the step's."""
    ABANDONED: Final = "abandoned"
    """The flow stopped waiting for a child, or for a step that may have started some: they are asked to cancel."""
    CHILD_OPEN: Final = "child_open"
    """An attempt of the flow ended before this child did; the next attempt may ask for the same child."""
    SIGNAL_RETURNED: Final = "signal_returned"
    """The step body that waited for a signal was over before it received it: the signal is unread again."""
    PATCHED: Final = "patched"
    """The flow passed `patched(name)` for the first time and took the new branch."""
    FLOW_RETRIED: Final = "flow_retried"
    """The flow raised and starts again from its entry; see `replay/attempts.py` for what it takes along."""
    RETRY_NOW: Final = "retry_now"
    """An operator asked not to wait: what backs off, the flow or steps of it, is tried again from this moment on."""


def wait_of(op: str, key: str) -> str:
    """The operation of a durable wait inside a step body, such as `0:2/signal:approval#1`."""
    return f"{op}/{key}"


def split_wait(op: str) -> tuple[str, str]:
    """The step's operation, and the key of the wait inside it; empty when the operation is the step itself."""
    path, _, rest = op.partition(":")
    number, _, key = rest.partition("/")
    return f"{path}:{number}", key


DELIVERED: Final = frozenset(
    {
        EventKind.STEP_COMPLETED,
        EventKind.STEP_FAILED,
        EventKind.TIMER_FIRED,
        EventKind.SIGNAL_RECEIVED,
        EventKind.CHILD_COMPLETED,
        EventKind.CHILD_FAILED,
        EventKind.CANCEL_REQUESTED,
    }
)
