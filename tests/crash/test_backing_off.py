"""A flow that is to be tried again later is tried again later, whatever comes for it meanwhile."""

from __future__ import annotations

import time

import pytest

from ergon import FlowCancelled, InMemoryExecutionLog, RetryPolicy, Scheduler, Worker, flow, run_step

DELAY_SECONDS = 0.6


def fail_at_first(started: list[float]) -> int:
    started.append(time.monotonic())
    if len(started) == 1:
        raise OSError("not yet")
    return len(started)


STARTED: list[float] = []


@flow(retry=RetryPolicy(attempts_max=2, backoff="fixed", first_delay_seconds=DELAY_SECONDS))
async def patient() -> int:
    return await run_step(lambda: fail_at_first(STARTED), name="work")


async def test_a_signal_does_not_shorten_the_wait_before_the_next_attempt() -> None:
    STARTED.clear()
    async with InMemoryExecutionLog() as log, Worker(log, flows=[patient]):
        handle = await Scheduler(log).schedule(patient.bind())
        while await handle.status() != "suspended":
            pass
        for number in range(3):
            await handle.signal("hello", number)

        assert await handle.result(10) == 2

    assert STARTED[1] - STARTED[0] >= DELAY_SECONDS - 0.01


async def test_a_cancel_does_not_wait_for_the_next_attempt() -> None:
    STARTED.clear()
    async with InMemoryExecutionLog() as log, Worker(log, flows=[patient]):
        handle = await Scheduler(log).schedule(patient.bind())
        while await handle.status() != "suspended":
            pass
        began = time.monotonic()
        await handle.signal("hello")
        await handle.cancel("enough")

        with pytest.raises(FlowCancelled):
            await handle.result(10)

    assert time.monotonic() - began < DELAY_SECONDS
