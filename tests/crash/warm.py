"""Imported by the zygote: run one flow once, so that its children find every lazy import done and every cache full.

The log is in memory and closed again, and its threads have ended: what is forked afterwards has none of it.
"""

from __future__ import annotations

import asyncio
import threading

from ergon import InMemoryExecutionLog, Scheduler, Worker, flow, step


@step
async def _warm_step(number: int) -> list[str]:
    return [str(number)]


@flow
async def _warm_flow(number: int) -> list[str]:
    await asyncio.sleep(0)
    return await _warm_step(number)


async def _warm() -> None:
    async with InMemoryExecutionLog() as log, Worker(log, flows=[_warm_flow]):
        await (await Scheduler(log).schedule(_warm_flow.bind(1), id="warm")).result()


def _run_all() -> None:
    asyncio.run(_warm())
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(10)  # a log's threads say that they are done a moment before they end
    assert threading.active_count() == 1, f"a thread would not survive the fork: {threading.enumerate()}"


_run_all()
