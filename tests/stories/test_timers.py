"""Timers are never early, and fire after a restart, even when nobody ran at the time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from ergon import (
    ExecutionLog,
    Executor,
    NotInFlow,
    SqliteExecutionLog,
    Suspended,
    UsageError,
    flow,
    schedule_timer,
    schedule_timer_named,
)
from tests.stories.conftest import SettableClock
from tests.stories.helpers import process_with_worker, start, until_status, worker
from tests.stories.programs import FLOWS, nap


async def test_a_sleep_is_a_durable_timer_that_is_never_early(either_log: ExecutionLog) -> None:
    @flow
    async def rest() -> None:
        await asyncio.sleep(0.12)

    async with worker(either_log, rest):
        handles = [await start(either_log, rest.bind(), f"f-{number}") for number in range(20)]
        for handle in handles:
            await handle.result(10)

    for handle in handles:
        record = await handle.record()
        (fired,) = await either_log.history(handle.id)
        assert fired.kind == "timer_fired"
        assert record.started_at is not None
        assert 0.12 <= fired.at - record.started_at < 1


async def test_a_timer_fires_although_no_worker_ran_when_it_was_due(path: Path, clock: SettableClock) -> None:
    @flow
    async def rest() -> str:
        await asyncio.sleep(86_400)
        return "rested"

    async with SqliteExecutionLog(path, clock=clock) as log, worker(log, rest):
        await until_status(await start(log, rest.bind()), "suspended")
    clock.pass_time(86_400 * 3)

    async with SqliteExecutionLog(path, clock=clock) as log, worker(log, rest):
        assert await (await start(log, rest.bind())).result(10) == "rested"


async def test_a_timer_survives_the_death_of_its_worker(
    log: ExecutionLog, path: Path, clock: SettableClock
) -> None:
    handle = await start(log, nap.bind(3_600.0))
    async with process_with_worker(path) as process:
        await until_status(handle, "running", "suspended")
        process.kill()
        await process.wait()
    async with worker(log, *FLOWS):
        await until_status(handle, "suspended")
    clock.pass_time(3_601)

    async with worker(log, *FLOWS):
        assert await handle.result(10) == "rested"


@pytest.mark.every_log
async def test_a_restart_does_not_begin_the_wait_again(log: ExecutionLog) -> None:
    @flow
    async def rest() -> None:
        await asyncio.sleep(0.5)

    handle = await start(log, rest.bind())
    for _ in range(3):
        async with worker(log, rest):
            await until_status(handle, "suspended", "completed")
    async with worker(log, rest):
        await handle.result(10)

    record = await handle.record()
    assert record.started_at is not None
    assert record.ended_at is not None
    assert 0.5 <= record.ended_at - record.started_at < 2


async def test_a_named_timer_is_told_by_its_name(log: ExecutionLog) -> None:
    @flow
    async def check() -> None:
        await schedule_timer_named(3_600, "fraud-check")

    async with worker(log, check):
        handle = await start(log, check.bind())
        await until_status(handle, "suspended")

    assert 'timer "fraud-check", due at' in await handle.why()


@pytest.mark.every_log
async def test_timers_fire_in_the_order_they_are_due(log: ExecutionLog) -> None:
    order: list[str] = []

    @flow
    async def race() -> list[str]:
        async def after(name: str, seconds: float) -> None:
            await schedule_timer_named(seconds, name)
            order.append(name)

        await asyncio.gather(after("late", 0.15), after("early", 0.05), after("middle", 0.1))
        return order

    async with worker(log, race, evict_after_seconds=10):
        assert await (await start(log, race.bind())).result(10) == ["early", "middle", "late"]


@pytest.mark.every_log
async def test_a_timer_that_is_cancelled_writes_nothing(log: ExecutionLog) -> None:
    @flow
    async def hurry() -> str:
        async with asyncio.timeout(3_600):
            await schedule_timer(0.01)
        return "done"

    async with worker(log, hurry):
        assert await (await start(log, hurry.bind())).result(10) == "done"

    assert len(await log.history("f")) == 1


async def test_a_hundred_timers_of_a_flow_cost_no_more_than_their_events(log: ExecutionLog) -> None:
    @flow
    async def many() -> int:
        await asyncio.gather(*(asyncio.sleep(0.01 + number / 10_000) for number in range(100)))
        return 100

    async with worker(log, many):
        started = time.monotonic()
        assert await (await start(log, many.bind())).result(10) == 100
        assert time.monotonic() - started < 3

    assert len(await log.history("f")) == 100


async def test_a_timer_not_yet_due_leaves_the_executor_suspended_again(
    log: ExecutionLog, clock: SettableClock
) -> None:
    executor = Executor(nap.bind(3_600.0), log, "f")

    first = await executor.run()
    second = await executor.run()

    assert isinstance(first, Suspended)
    assert isinstance(second, Suspended)
    assert first.waits[0]["due"] == second.waits[0]["due"]


async def test_timers_mean_nothing_outside_a_flow() -> None:
    with pytest.raises(NotInFlow, match=r"asyncio\.sleep"):
        await schedule_timer(1)
    with pytest.raises(UsageError, match="0 or more"):
        await schedule_timer(-1)
