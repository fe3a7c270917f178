"""What a log answers, in the words of the model."""

from __future__ import annotations

from typing import Any

from ergon.core.commit import FlowRecord
from ergon.errors import FlowNotFound, IllegalMove, LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.oracle.compare import equal


async def answered(call: Any) -> Any:
    """What a call returned, or the name of its error."""
    try:
        return await call
    except (LeaseLost, IllegalMove, FlowNotFound) as error:
        return type(error).__name__


async def as_found(log: ExecutionLog, moved: object) -> object:
    """None for an act that returned the flow as it is now."""
    if isinstance(moved, FlowRecord):
        equal("the flow that was acted upon", moved, await log.find(moved.id))
        return None
    return moved


def name_of(error: BaseException | None) -> str | None:
    """As the model calls it."""
    return None if error is None else type(error).__name__
