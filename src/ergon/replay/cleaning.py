"""Whether a flow that was cancelled is still cleaning up, in its `except` and `finally` blocks.

A cancel that comes meanwhile must not break that off; one that comes after the flow has gone on must reach it. The
coroutines themselves tell: while one waits inside such a block, it holds the error that it handles, which is the
`CancelledError` or came of it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable
from types import FrameType
from typing import Any


def cleans_up(tasks: Iterable[asyncio.Task[Any]]) -> bool:
    """True when one of a flow's tasks waits while it handles a cancellation.

    Any of them: from a task that waits for others, as `gather` and `TaskGroup` do, it cannot be told for which.
    """
    return any(not task.done() and _handles_cancellation(task.get_coro()) for task in tasks)


def _handles_cancellation(awaiting: Any) -> bool:
    while awaiting is not None:
        frame = getattr(awaiting, "cr_frame", None) or getattr(awaiting, "gi_frame", None)
        if frame is None:
            return False
        held = [id(each) for each in gc.get_referents(awaiting) if _comes_of_a_cancel(each)]
        if len(held) > _kept_in_variables(frame):
            return True
        awaiting = getattr(awaiting, "cr_await", None) or getattr(awaiting, "gi_yieldfrom", None)
    return False


def _kept_in_variables(frame: FrameType) -> int:
    """How many of them the code has given names: those are kept, not handled."""
    names = frame.f_locals
    kept = (names.get(name) for name in frame.f_code.co_varnames)
    return sum(_comes_of_a_cancel(each) for each in kept)


def _comes_of_a_cancel(held: object) -> bool:
    """True for a cancellation and for errors raised while one was handled, but not for a time limit that is over."""
    error = held if isinstance(held, BaseException) else None
    while error is not None and not isinstance(error, asyncio.CancelledError):
        limit = error.__cause__ if isinstance(error, TimeoutError) else None
        error = limit.__context__ if isinstance(limit, asyncio.CancelledError) else error.__context__
    return error is not None
