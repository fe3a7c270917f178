"""The flows and steps that the workloads run on Ergon, and how they are started."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from ergon import ExecutionLog, Scheduler, Worker, WorkerOptions, flow, open_log, step, wait_signal

STEP_SECONDS = 0.02
"""How long a step of `traced` takes after it told that it began."""

began: list[float] = []
"""When each body began, by a clock all processes of this machine share."""


@step
async def add_one(number: int) -> int:
    began.append(time.perf_counter())
    return number + 1


@flow
async def in_sequence(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await add_one(number)
    return number


@step
async def plain_add_one(number: int) -> int:
    return number + 1


@flow
async def in_parallel(steps: int) -> float:
    """Returns how long the gather took, in seconds; it measures itself with the host's clock, not the flow's."""
    start = time.perf_counter()
    await asyncio.gather(*(plain_add_one(n) for n in range(steps)))
    return time.perf_counter() - start


@flow
async def one_step(number: int) -> int:
    return await add_one(number)


@step
async def moment() -> float:
    return time.perf_counter()


@flow
async def tell_moment() -> float:
    """When its first step began."""
    return await moment()


@flow
async def wait_for_go() -> None:
    await wait_signal("go", int)


@asynccontextmanager
async def running(
    place: str, flows: Iterable[Any], options: WorkerOptions | None = None
) -> AsyncIterator[tuple[ExecutionLog, Scheduler]]:
    """Open a log and a worker with the defaults that users have."""
    async with open_log(place) as log, Worker(log, flows=flows, options=options):
        yield log, Scheduler(log)


@step
async def trace_moment(path: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{time.perf_counter()}\n")
    await asyncio.sleep(STEP_SECONDS)


@flow
async def traced(path: str, steps: int) -> None:
    """Each step writes when it began, then takes a while."""
    for _ in range(steps):
        await trace_moment(path)
