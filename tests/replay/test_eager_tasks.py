"""Tasks that begin at once instead of in the next turn of the loop (Python 3.12 and newer): the same on replay."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from ergon import InMemoryExecutionLog, Scheduler, Worker, flow, step
from ergon.errors import NotAllowedInFlow
from tests.replay.rig import Rig, charge, replay, ship


def eagerly(work: Any) -> Any:
    loop: Any = asyncio.get_running_loop()
    return loop.create_task(work, eager_start=True)


async def eager_flow() -> list[str]:
    order: list[str] = []

    async def branch(name: str) -> str:
        order.append(f"{name} began")
        first = await charge(len(name))
        return first + await ship(name)

    async def short(name: str) -> str:
        order.append(name)
        return name

    tasks = [eagerly(branch("a")), eagerly(short("done at once")), eagerly(branch("bb"))]
    order.append("all made")
    assert tasks[1].done()
    return [*order, *(await asyncio.gather(*tasks))]


def test_an_eager_task_has_its_place_in_the_flow_and_replays() -> None:
    rig = Rig(eager_flow)
    assert rig.ids() == ["0/1:1", "0/3:1"]

    rig.completes("charge", "A").land()
    half = replay(eager_flow, rig)
    assert half.ids() == rig.ids() == ["0/3:1", "0/1:2"]
    rig.completes("ship", "1").completes("charge", "B").land().completes("ship", "2").land()

    assert rig.result == ["a began", "done at once", "bb began", "all made", "A1", "done at once", "B2"]
    assert replay(eager_flow, rig).result == rig.result
    assert rig.errors == []


def test_an_eager_task_can_be_cancelled_and_evicted() -> None:
    async def flow() -> str:
        task = eagerly(charge())
        await ship()
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return "not cancelled"

    rig = Rig(flow)
    rig.completes("ship").land()
    assert rig.result == "cancelled"

    evicted = Rig(flow)
    evicted.machine.dismiss()
    assert evicted.machine.loop.tasks == {}


if sys.version_info >= (3, 14):  # since then asyncio passes it on

    def test_asyncio_passes_eager_start_on() -> None:
        async def flow() -> list[str]:
            create_task: Any = asyncio.create_task
            async with asyncio.TaskGroup() as group:
                make: Any = group.create_task
                one, other = make(charge(), eager_start=True), create_task(ship(), eager_start=True)
            return [one.result(), await other]

        rig = Rig(flow)
        rig.completes("ship", "s").completes("charge", "c").land()

        assert rig.result == ["c", "s"]
        assert replay(flow, rig).result == rig.result


async def sets_a_factory() -> None:
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]


async def calls_the_factory() -> None:
    factory: Any = asyncio.eager_task_factory  # type: ignore[attr-defined]
    await factory(asyncio.get_running_loop(), charge())


@pytest.mark.parametrize(
    "outside, says", [(sets_a_factory, "set_task_factory"), (calls_the_factory, "asyncio.create_task")]
)
def test_the_eager_factory_is_refused_in_a_flow(outside: Any, says: str) -> None:
    for _ in range(2):  # on its first run and when it is tried again
        rig = Rig(outside)
        with pytest.raises(NotAllowedInFlow, match=says):
            _ = rig.result
        assert rig.asked() == []


@step
async def double(number: int) -> int:
    return 2 * number


@step
async def slow_double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


@flow
async def doubles() -> list[int]:
    return [
        *(await asyncio.gather(*[double(number) for number in range(5)])),
        await slow_double(5),
        await double(6),
    ]


async def test_a_program_whose_loop_makes_eager_tasks_runs_flows() -> None:
    """Flow code must not come to run inside a task of the program's loop."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined]

    async with InMemoryExecutionLog() as log, Worker(log, flows=[doubles]):
        handles = [await Scheduler(log).schedule(doubles.bind(), id=f"f-{n}") for n in range(20)]
        for handle in handles:
            assert await handle.result(10) == [0, 2, 4, 6, 8, 10, 12]
