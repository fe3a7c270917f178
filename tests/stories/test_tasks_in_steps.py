"""Tasks of a step body come to their waits in another order each time it runs: each gets what it waits for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ergon import (
    ExecutionLog,
    Executor,
    FlowFilter,
    FlowHandle,
    FlowParked,
    Scheduler,
    Suspended,
    flow,
    invoke,
    schedule_timer,
    schedule_timer_named,
    step,
    wait_signal,
)
from tests.stories.conftest import SettableClock
from tests.stories.helpers import kinds, start, until, until_status, worker


@flow
async def price(item: str) -> str:
    return f"{item} costs {await wait_signal('go', str)}"


def handle_of(log: ExecutionLog, id: str) -> FlowHandle[Any]:
    return Scheduler(log).handle(id)


async def prices(log: ExecutionLog) -> dict[str, str]:
    """The ids of the children, by their input."""
    found, _ = await log.list(FlowFilter(names=("price",)))
    return {record.input: record.id for record in found}


async def let_go(log: ExecutionLog, item: str) -> None:
    await until(lambda: has_price(log, item))
    id = (await prices(log))[f'{{"item":"{item}"}}']
    await handle_of(log, id).signal("go", "1")
    await handle_of(log, id).result(10)


async def has_price(log: ExecutionLog, item: str) -> bool:
    return f'{{"item":"{item}"}}' in await prices(log)


class Order:
    """In which order the tasks of a body go on, where a program would wait for something of varying duration."""

    def __init__(self, *first: str) -> None:
        self.first = first

    async def turn(self, item: str) -> None:
        for each in self.first:
            if each == item:
                return
            await asyncio.sleep(0)
            await asyncio.sleep(0)


@pytest.mark.parametrize("ended", [[], ["apple"], ["pear"], ["apple", "pear"]])
async def test_children_that_a_body_starts_in_another_order_keep_their_results(
    log: ExecutionLog, ended: list[str]
) -> None:
    order = Order("apple", "pear")

    async def ask(item: str) -> str:
        await order.turn(item)
        return await invoke(price.bind(item)).result()

    @step
    async def ask_all() -> list[str]:
        return list(await asyncio.gather(ask("apple"), ask("pear")))

    @flow
    async def parent() -> list[str]:
        return await ask_all()

    handle = await start(log, parent.bind())
    async with worker(log, parent, price):
        await until(lambda: has_price(log, "apple"))
        await until(lambda: has_price(log, "pear"))
    async with worker(log, price):
        for item in ended:
            await let_go(log, item)
    order.first = ("pear", "apple")
    async with worker(log, parent, price):
        for item in ("apple", "pear"):
            if item not in ended:
                await let_go(log, item)

        assert await handle.result(10) == ["apple costs 1", "pear costs 1"]
    assert len(await prices(log)) == 2


async def test_a_child_is_started_though_another_task_came_first_the_time_before(log: ExecutionLog) -> None:
    """The process ended between the two: the one that runs on must not get the other's result."""
    runs: list[str] = []

    async def ask(item: str) -> str:
        if not runs[1:] and item == "pear":
            await asyncio.Event().wait()
        while runs[1:] and item == "apple" and not await has_price(log, "pear"):
            await asyncio.sleep(0)
        return await invoke(price.bind(item)).result()

    @step
    async def ask_all() -> list[str]:
        runs.append("run")
        return list(await asyncio.gather(ask("apple"), ask("pear")))

    @flow
    async def parent() -> list[str]:
        return await ask_all()

    handle = await start(log, parent.bind())
    async with worker(log, parent, price, drain_seconds=0.01):
        await let_go(log, "apple")
        await until(lambda: answered(log))
    async with worker(log, parent, price):
        await let_go(log, "pear")

        assert await handle.result(10) == ["apple costs 1", "pear costs 1"]


async def answered(log: ExecutionLog) -> bool:
    return "step_waited" in await kinds(log)


async def test_equal_children_of_one_body_are_counted(log: ExecutionLog) -> None:
    @flow
    async def number(step: int) -> str:
        return await wait_signal("go", str)

    @step
    async def ask_twice() -> list[str]:
        handles = [invoke(number.bind(1)), invoke(number.bind(1)), invoke(number.bind(1), id="mine")]
        ids.append([handle.flow_id for handle in handles])
        return [await handle.result() for handle in handles]

    @flow
    async def parent() -> list[str]:
        return await ask_twice()

    ids: list[list[str]] = []
    handle = await start(log, parent.bind())
    async with worker(log, parent, number):
        await until(lambda: log.find("mine"))
        for count, id in enumerate(ids[0]):
            await handle_of(log, id).signal("go", str(count))

        assert await handle.result(10) == ["0", "1", "2"]
    assert all(each == ids[0] for each in ids)


@pytest.mark.parametrize("name", ["", "nap"])
async def test_timers_that_a_body_begins_in_another_order_keep_their_times(
    log: ExecutionLog, clock: SettableClock, name: str
) -> None:
    """One that is due must not wait for the other, and the other must not be early."""
    order = Order("short", "long")
    over: list[str] = []

    async def nap(which: str, seconds: float) -> None:
        await order.turn(which)
        await (schedule_timer_named(seconds, name) if name else schedule_timer(seconds))
        over.append(which)

    @step
    async def sleep() -> list[str]:
        over.clear()
        await asyncio.gather(nap("short", 10), nap("long", 3_600))
        return sorted(over)

    @flow
    async def parent() -> list[str]:
        return await sleep()

    handle = await start(log, parent.bind())
    async with worker(log, parent):
        await until(lambda: two_recorded(log))
    order.first = ("long", "short")
    clock.pass_time(11)
    async with worker(log, parent):
        await until(lambda: over == ["short"])
    clock.pass_time(3_590)
    async with worker(log, parent):
        assert await handle.result(10) == ["long", "short"]
    assert (await kinds(log)).count("step_waited") == 2


async def two_recorded(log: ExecutionLog) -> bool:
    return (await kinds(log)).count("step_waited") == 2


async def test_a_timer_whose_duration_is_left_to_chance_counts_from_its_first_beginning(
    log: ExecutionLog, clock: SettableClock
) -> None:
    """Each time the flow comes back the body runs again: it must not begin to wait anew, nor end too early."""
    durations = [3_600.0]
    asked: list[float] = []

    @step
    async def jittered() -> str:
        asked.append(durations[-1])
        await schedule_timer(durations[-1])
        return "rested"

    @flow
    async def parent() -> str:
        return await jittered()

    handle = await start(log, parent.bind())
    async with worker(log, parent):
        await until(lambda: answered(log))
    durations.append(4_000.0)
    clock.pass_time(3_700)
    async with worker(log, parent):
        await until(lambda: len(asked) == 2)
    record = await log.find("f")
    assert record is not None
    assert record.wake_at is not None
    assert 200 < record.wake_at - log.now() <= 300
    clock.pass_time(301)
    async with worker(log, parent):
        assert await handle.result(10) == "rested"


async def test_a_step_that_asks_for_another_child_each_time_it_runs_stops_the_flow(log: ExecutionLog) -> None:
    """Else it would start one after the other, and never hear of one that it still asks for."""
    runs: list[int] = []

    @step
    async def restless() -> str:
        runs.append(len(runs))
        return await invoke(price.bind(f"item {len(runs)}")).result()

    @flow
    async def parent() -> str:
        return await restless()

    async with worker(log, price):
        for count in range(1, 5):
            assert isinstance(await Executor(parent.bind(), log, "f").run(), Suspended)
            await let_go(log, f"item {count}")
        with pytest.raises(FlowParked, match=r"4 children that the body of step(.|\n)*Give it an `id=`"):
            await Executor(parent.bind(), log, "f").run()


async def test_a_task_that_a_finished_body_left_behind_starts_no_child(log: ExecutionLog) -> None:
    """Its flow would be the parent of something that no history tells of, and no replay asks for."""
    over = asyncio.Event()
    left: list[asyncio.Task[None]] = []

    @flow
    async def child() -> None: ...

    @step
    async def leaves_a_task() -> None:
        async def later() -> None:
            await over.wait()
            invoke(child.bind())

        left.append(asyncio.create_task(later()))

    @flow
    async def parent() -> None:
        await leaves_a_task()
        await wait_signal("go")

    async with worker(log, parent, child):
        handle = await start(log, parent.bind(), "f")
        await until_status(handle, "suspended")
        over.set()
        await asyncio.wait(left, timeout=10)
        await handle.signal("go")
        await handle.result(10)

        assert left[0].cancelled()
        found, _ = await log.list(FlowFilter(names=("child",)))
        assert not found
