"""When a flow is to start, as people say it."""

from __future__ import annotations

from datetime import datetime

from ergon.core.checks import check_seconds
from ergon.errors import UsageError


def start_at(at: datetime | None, delay: float | None) -> float | None:
    """The time in seconds since 1970-01-01 UTC; None for `delay`, which the log adds to its own time."""
    if delay is not None:
        check_seconds("delay", delay, zero=True)
    if at is None:
        return None
    if not isinstance(at, datetime):
        raise UsageError(
            f"at={at!r}: give a datetime with a time zone, such as datetime.now(UTC) + timedelta(days=1)"
        )
    if delay is not None:
        raise UsageError("give delay=... or at=..., not both")
    if at.tzinfo is None:
        raise UsageError(f"at={at!r} has no time zone; say which, such as at.astimezone() or tzinfo=UTC")
    return at.timestamp()
