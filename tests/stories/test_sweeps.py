"""However many flows wait in step bodies, letting them go takes little of the event loop's time."""

from __future__ import annotations

import asyncio

import pytest

from ergon import ExecutionLog, FlowFilter, Scheduler, flow, step, wait_signal
from ergon.executor.idleness import Look
from ergon.executor.run import FlowRun
from ergon.worker import residents
from tests.stories.helpers import soon, until, worker

COUNT = 60

waiting: list[str] = []


@step
async def ask(name: str) -> str:
    waiting.append(name)
    return await wait_signal("approval", str)


@flow
async def process(name: str) -> str:
    return await ask(name)


@pytest.fixture(autouse=True)
def fresh() -> None:
    waiting.clear()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A growing list of how many flows were still awaited each time that somebody went through all tasks."""
    found: list[int] = []
    all_tasks = asyncio.all_tasks

    def counted(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[object]]:
        found.append(len(waiting))
        return all_tasks(loop)

    monkeypatch.setattr(asyncio, "all_tasks", counted)
    return found


async def all_wait(log: ExecutionLog) -> None:
    await Scheduler(log).schedule_all(
        [process.bind(str(number)) for number in range(COUNT)], ids=[f"f-{number}" for number in range(COUNT)]
    )
    await until(lambda: len(waiting) == COUNT)
    await asyncio.sleep(0.2)  # their starts are durable


async def suspended(log: ExecutionLog) -> int:
    found, _ = await log.list(FlowFilter(), limit=COUNT)
    return sum(record.status == "suspended" for record in found)


async def all_suspended(log: ExecutionLog) -> bool:
    return await suspended(log) == COUNT


async def test_a_sweep_goes_through_all_tasks_once_for_many_flows(
    log: ExecutionLog, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(log, process):
        await all_wait(log)
        looks.clear()
        monkeypatch.setattr(residents, "STEP_WAIT_EVICT_SECONDS", 0.0)
        await until(lambda: all_suspended(log))

        assert 1 <= len(looks) <= 3


async def test_a_drain_goes_through_all_tasks_once_for_many_flows(
    log: ExecutionLog, looks: list[int]
) -> None:
    async with worker(log, process) as found:
        await all_wait(log)
        looks.clear()
        await soon(found.shutdown(30))

    assert 1 <= len(looks) <= 3
    assert await suspended(log) == COUNT


async def test_a_sweep_lets_go_a_few_flows_in_each_turn_of_the_event_loop(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "SWEPT_AT_ONCE", 10)
    let_go: list[int] = []
    suspend = FlowRun.suspend
    turns = 0

    def counted(run: FlowRun, look: Look | None = None) -> bool:
        let_go.append(turns)
        return suspend(run, look)

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with worker(log, process):
        await all_wait(log)
        turning = asyncio.create_task(turn())
        monkeypatch.setattr(FlowRun, "suspend", counted)
        monkeypatch.setattr(residents, "STEP_WAIT_EVICT_SECONDS", 0.0)
        await until(lambda: len(let_go) == COUNT)
        turning.cancel()

        await until(lambda: all_suspended(log))
    assert max(let_go.count(each) for each in let_go) <= 10
