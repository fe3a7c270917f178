"""When a flow is to start, as people say it."""

from __future__ import annotations

from datetime import datetime

from ergon.errors import UsageError


def start_at(at: datetime | None, delay: float | None) -> float | None:
    """The time in seconds since 1970-01-01 UTC; None for `delay`, which the log adds to its own time."""
    if delay is not None and not 0 <= delay < 3.2e9:
        raise UsageError(f"delay={delay!r}: give seconds from 0 up to a hundred years")
    if at is None:
        return None
    if delay is not None:
        raise UsageError("give delay=... or at=..., not both")
    if at.tzinfo is None:
        raise UsageError(f"at={at!r} has no time zone; say which, such as at.astimezone() or tzinfo=UTC")
    return at.timestamp()
