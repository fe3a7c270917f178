"""How a new flow stands: the rule that every log follows when it creates one."""

from __future__ import annotations

from typing import NamedTuple

from ergon.core.commit import NewFlow
from ergon.core.status import TaskStatus


class Start(NamedTuple):
    """A new flow's columns, but for what its creator gave. Times are by the log's clock."""

    status: str
    owner: str | None = None
    claims: int = 0
    """How often it has been claimed: what the log adds to the multiple of `EPOCHS_A_LIFE` at which epochs begin now."""
    started_at: float | None = None
    ready_at: float | None = None
    wake_at: float | None = None
    deadline_at: float | None = None
    claimed_seq: int | None = None


def start_of(flow: NewFlow, now: float) -> Start:
    """Claimed already when it names an owner; else ready at once, or when its time has come."""
    if flow.owner is not None:
        deadline_at = now + flow.timeout_seconds if flow.timeout_seconds is not None else None
        return Start(TaskStatus.RUNNING.value, flow.owner, 1, now, None, None, deadline_at, 0)
    start_at = now + flow.delay_seconds if flow.delay_seconds is not None else flow.start_at
    if start_at is None or start_at <= now:
        return Start(TaskStatus.PENDING.value, ready_at=start_at or now)
    return Start(TaskStatus.PENDING.value, wake_at=start_at)
