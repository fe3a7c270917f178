"""A flow that is to be tried again later is tried again later, whatever comes for it meanwhile."""

from __future__ import annotations

import asyncio
import time

import pytest

from ergon import FlowCancelled, InMemoryExecutionLog, RetryPolicy, Scheduler, Worker, flow, run_step
from ergon.core.commit import ClaimRequest, Commit
from ergon.core.failure import describe
from ergon.core.history import Event, EventKind
from ergon.executor.incarnation import Incarnation

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


@flow(retry=RetryPolicy(attempts_max=2, backoff="fixed", first_delay_seconds=3_600.0))
async def very_patient() -> int:
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


async def test_a_cancel_that_came_before_a_flow_is_seen_to_have_failed_does_not_wait_either() -> None:
    """Its worker died between the failure of the step and that of the flow, which shows only when it is replayed."""
    STARTED.clear()
    async with InMemoryExecutionLog() as log:
        handle = await Scheduler(log).schedule(very_patient.bind())
        async with Incarnation(log, "dies", (very_patient.name,), 30.0) as incarnation:
            (claimed,) = await log.claim(ClaimRequest(worker=incarnation.id, names=(very_patient.name,)))
            failed = describe(OSError("not yet"))
            event = Event(1, EventKind.STEP_FAILED, "0:1", "work", "", failed, log.now(), "", 1)
            landed = asyncio.get_running_loop().create_future()
            log.submit(Commit(handle.id, claimed.lease, (event,)), landed.set_result)
            assert await landed is None
        await handle.cancel("enough")

        async with Worker(log, flows=[very_patient]):
            with pytest.raises(FlowCancelled):
                await handle.result(10)

    assert not STARTED
