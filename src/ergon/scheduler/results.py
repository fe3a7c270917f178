"""The results of many flows, without a task and a wake-up for each."""

# A handle's inner words are for this room alone.
# ruff: noqa: SLF001

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ergon.errors import DecodingError, FlowNotFound, LogDamaged
from ergon.scheduler.handle import FlowHandle
from ergon.scheduler.watching import Wait, Watcher


async def results_of(
    handles: Iterable[FlowHandle[Any]],
    timeout: float | None,  # noqa: ASYNC109 - as in `Scheduler.results`
    *,
    return_exceptions: bool,
) -> list[Any]:
    """`Scheduler.results`."""
    waits: list[tuple[FlowHandle[Any], Watcher, Wait]] = []
    try:
        for handle in handles:
            watcher = handle._watcher()
            waits.append((handle, watcher, watcher.watch(handle.id)))
        limit = asyncio.timeout(timeout)
        try:
            async with limit:
                if not return_exceptions:
                    return [handle._outcome(await future) for handle, _, future in waits]
                return [await _outcome(handle, future) for handle, _, future in waits]
        except TimeoutError:
            if timeout is None or not limit.expired():
                raise
            raise TimeoutError(_too_late(timeout, waits)) from None
    finally:
        for handle, watcher, future in waits:
            watcher.leave(handle.id, future)


def _too_late(seconds: float, waits: list[tuple[FlowHandle[Any], Watcher, Wait]]) -> str:
    # The one that was just being awaited is cancelled by the end of the time.
    still_open = [handle.id for handle, _, future in waits if not future.done() or future.cancelled()]
    ended = len(waits) - len(still_open)
    first = f"; the first that was not is {still_open[0]!r}" if still_open else ""
    return (
        f"{ended} of {len(waits)} flows were seen to end within {seconds:g} s{first}. That stops "
        "nothing: wait again, or ask `await handle.why()` what one waits for"
    )


async def _outcome(handle: FlowHandle[Any], future: Wait) -> Any:
    """What became of one flow. What the log raises for itself, such as that it is busy, says nothing of the flow."""
    try:
        settled = await future
        failure = handle._failure(settled)
        return handle._outcome(settled) if failure is None else failure
    except (FlowNotFound, LogDamaged, DecodingError) as error:
        return error
