"""The results of many flows, without a task and a wake-up for each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from ergon.scheduler.handle import FlowHandle


async def results_of(
    handles: Iterable[FlowHandle[Any]],
    timeout: float | None,  # noqa: ASYNC109 - as in `Scheduler.results`
    *,
    return_exceptions: bool,
) -> list[Any]:
    """`Scheduler.results`."""
    waits = [(handle, handle.watch()) for handle in handles]
    found: list[Any] = []
    try:
        async with asyncio.timeout(timeout):
            for handle, future in waits:
                try:
                    found.append(handle.outcome(await future))
                except Exception as error:
                    if not return_exceptions:
                        raise
                    found.append(error)
    finally:
        for handle, future in waits[len(found) :]:
            handle.leave(future)
    return found
