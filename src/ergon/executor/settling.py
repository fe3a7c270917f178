"""How a flow ends: what its coroutine did becomes a status, an output, or another attempt."""

from __future__ import annotations

import asyncio
import inspect
import random
import traceback
from collections.abc import Sequence
from typing import Any, NamedTuple

from ergon.core.codec import encode, recode
from ergon.core.commit import MessageKind, Received, Settled
from ergon.core.failure import describe
from ergon.core.history import Event, EventKind
from ergon.core.retry import next_delay
from ergon.core.status import TaskStatus
from ergon.errors import EncodingError, FlowCancelled, FlowError
from ergon.flows.flow import Flow


class Retry(NamedTuple):
    """The flow raised and is tried again after this many seconds."""

    delay_seconds: float
    failure: str


def settle(
    root: asyncio.Task[Any], flow: Flow[..., Any], *, flow_id: str, attempt: int, cancel_reason: str | None
) -> Settled | Retry:
    """Decide from the ended coroutine. `cancel_reason` is None when nobody asked to cancel."""
    if root.cancelled():
        reason = cancel_reason if cancel_reason is not None else "it cancelled itself"
        return Settled(TaskStatus.CANCELLED, describe(FlowCancelled(flow_id, reason)), reason=reason)
    error = root.exception()
    _close_refused(error)
    if error is None:
        try:
            text, _ = recode(root.result(), flow.result_decoder)
        except EncodingError as refused:
            error = EncodingError(
                f"the result of flow `{flow.name}` cannot be stored: {refused}", path=refused.path
            )
        else:
            return Settled(TaskStatus.COMPLETED, text)
    if isinstance(error, SystemExit):
        error = FlowError(f"SystemExit: {error.code!r}; a flow cannot end its process")
    if isinstance(error, KeyboardInterrupt):
        error = FlowError("KeyboardInterrupt: raised by the flow; a flow cannot end its process")
    if not isinstance(error, Exception):
        error = FlowError(f"{type(error).__name__}: {error}".removesuffix(": "))
    failure = describe(error)
    # The jitter of a flow's retry needs no repeatability: the delay is recorded with the event.
    delay = next_delay(flow.options.retry, attempt, error, random.Random())
    if delay is not None and cancel_reason is None:
        return Retry(delay, failure)
    return Settled(TaskStatus.FAILED, failure)


def _close_refused(error: BaseException | None) -> None:
    """Close what `asyncio.run` was given and refused: Python would warn that it was never awaited."""
    if not isinstance(error, RuntimeError):
        return
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == asyncio.runners.__file__:
            for value in frame.f_locals.values():
                if inspect.iscoroutine(value) and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
                    value.close()


def backing_off(flow: Flow[..., Any], until: float, inbox_seen: int) -> Settled:
    """How a flow is left that raised and is tried again at this time."""
    reason = encode([{"kind": "retry", "name": flow.name, "op": "", "due": until}])
    return Settled(TaskStatus.SUSPENDED, None, until, reason, inbox_seen)


def still_backing_off(history: Sequence[Event], inbox: Sequence[Received], now: float) -> float | None:
    """When the next attempt is due, for a flow that a message woke before that time; None: it goes on now.

    A cancel does not wait.
    """
    last = history[-1] if history else None
    if last is None or last.kind != EventKind.FLOW_RETRIED or last.at <= now:
        return None
    return None if any(message.kind == MessageKind.CANCEL for message in inbox) else last.at
