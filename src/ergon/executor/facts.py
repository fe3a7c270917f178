"""What has happened to a flow and is not durable yet, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from ergon.core.history import Event

NOT_DECODED: Final[Any] = object()
"""In `Fact.value`: decode the event's payload when it is delivered."""


class Fact(NamedTuple):
    """An event on its way into the log, and what follows once it is there."""

    event: Event
    value: Any = NOT_DECODED
    """The decoded payload, when it is at hand."""
    after: Callable[[], None] | None = None
    """Called when the event is durable."""
