"""Many flows started by one call, and their results."""

from __future__ import annotations

import asyncio

import pytest

from ergon import (
    ExecutionLog,
    Executor,
    FlowIdConflict,
    FlowNotFound,
    InvalidName,
    NotInFlow,
    ScheduleOptions,
    Scheduler,
    TaskStatus,
    UsageError,
    flow,
    step,
    wait_signal,
)
from tests.stories.helpers import worker

ran: list[int] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    ran.clear()


@step
async def double(number: int) -> int:
    ran.append(number)
    return 2 * number


@flow
async def doubled(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return await double(number)


@flow
async def held(number: int) -> int:
    await wait_signal("go", str)
    return number


def ids(count: int) -> list[str]:
    return [f"f{number}" for number in range(count)]


async def test_many_flows_start_in_one_call_and_their_results_keep_the_order(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    async with worker(log, doubled):
        handles = await scheduler.schedule_all(
            (doubled.bind(number) for number in range(700)), ids=(f"f{number}" for number in range(700))
        )
        results = await scheduler.results(handles)

    assert [handle.id for handle in handles] == ids(700)
    assert results == [2 * number for number in range(700)]
    assert sorted(ran) == list(range(700))


async def test_each_gets_an_id_of_its_own_when_none_are_given(log: ExecutionLog) -> None:
    handles = await Scheduler(log).schedule_all([doubled.bind(1), doubled.bind(1)])

    assert len({handle.id for handle in handles}) == 2
    assert [await handle.status() for handle in handles] == [TaskStatus.PENDING] * 2


async def test_the_same_call_again_starts_nothing_twice(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    async with worker(log, doubled):
        for _ in range(2):
            handles = await scheduler.schedule_all(map(doubled.bind, range(20)), ids=ids(20))
            assert await scheduler.results(handles) == [2 * number for number in range(20)]

    assert sorted(ran) == list(range(20))


async def test_no_flows_are_no_work(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)

    assert await scheduler.schedule_all([]) == []
    assert await scheduler.results([]) == []


@pytest.mark.parametrize(
    "given, error, words",
    [
        (["a"], UsageError, "1 ids for 2 flows"),
        (["a", "b", "c"], UsageError, "3 ids for 2 flows"),
        (["a", "a"], UsageError, "the same id"),
        (["a", ""], InvalidName, "empty"),
    ],
)
async def test_ids_that_do_not_fit_are_refused_before_anything_is_started(
    log: ExecutionLog, given: list[str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await Scheduler(log).schedule_all([doubled.bind(1), doubled.bind(2)], ids=given)

    assert await log.find("a") is None


async def test_an_id_of_another_flow_is_told_and_keeps_none_of_the_others_from_starting(
    log: ExecutionLog,
) -> None:
    scheduler = Scheduler(log)
    await scheduler.schedule(doubled.bind(7), id="f1")

    with pytest.raises(FlowIdConflict, match="f1"):
        await scheduler.schedule_all(map(doubled.bind, range(3)), ids=ids(3))

    assert [await scheduler.handle(name).status() for name in ids(3)] == [TaskStatus.PENDING] * 3
    assert (await scheduler.handle("f1").record()).input == '{"number":7}'


async def test_delay_tags_and_options_are_those_of_all(log: ExecutionLog) -> None:
    scheduler = Scheduler(log).with_version("1.4")
    options = ScheduleOptions(queue="slow", priority=3, timeout=60)

    handles = await scheduler.schedule_all(
        map(doubled.bind, range(2)), delay=3_600, tags=["gpu"], options=options
    )

    for handle in handles:
        record = await handle.record()
        assert (record.queue, record.priority, record.tags, record.version) == ("slow", 3, ("gpu",), "1.4")
        assert record.wake_at is not None
        assert record.wake_at > log.now() + 3_000


async def test_results_raise_what_the_first_of_them_that_failed_raised(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    async with worker(log, doubled):
        handles = await scheduler.schedule_all(map(doubled.bind, (1, -2, 3, -4)))
        with pytest.raises(ValueError, match="-2 is negative"):
            await scheduler.results(handles)

        found = await scheduler.results(handles, return_exceptions=True)

    assert [type(result) for result in found] == [int, ValueError, int, ValueError]
    assert [str(result) for result in found] == ["2", "-2 is negative", "6", "-4 is negative"]


async def test_results_of_a_flow_that_does_not_exist(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    async with worker(log, doubled):
        handles = [await scheduler.schedule(doubled.bind(1), id="there"), scheduler.handle("gone", int)]
        with pytest.raises(FlowNotFound, match="gone"):
            await scheduler.results(handles)

        there, gone = await scheduler.results(handles, return_exceptions=True)

    assert (there, type(gone)) == (2, FlowNotFound)


async def test_results_that_take_too_long_can_be_waited_for_again(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    async with worker(log, held):
        handles = await scheduler.schedule_all(map(held.bind, range(3)))
        with pytest.raises(TimeoutError):
            await scheduler.results(handles, timeout=0.05)
        with pytest.raises(TimeoutError):
            await scheduler.results(handles, 0.05, return_exceptions=True)
        for handle in handles:
            await handle.signal("go", "now")

        assert await scheduler.results(handles, 30) == [0, 1, 2]


async def test_whoever_is_cancelled_while_it_waits_for_results_leaves_nothing_behind(
    log: ExecutionLog,
) -> None:
    scheduler = Scheduler(log)
    async with worker(log, held):
        handles = await scheduler.schedule_all(map(held.bind, range(3)))
        waiting = asyncio.create_task(scheduler.results(handles))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for handle in handles:
            await handle.signal("go", "now")

        assert [await handle.result(30) for handle in handles] == [0, 1, 2]


async def test_inside_a_flow_both_are_refused(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    handle = scheduler.handle("any")

    @flow
    async def starts() -> None:
        await scheduler.schedule_all([doubled.bind(1)])

    @flow
    async def waits() -> None:
        await scheduler.results([handle])

    for name, refused in (("starts", starts), ("waits", waits)):
        with pytest.raises(NotInFlow, match="inside a flow"):
            await Executor(refused.bind(), log, name).run()
