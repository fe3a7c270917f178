"""Many flows started by one call, and their results."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ergon import (
    ExecutionLog,
    Executor,
    FlowIdConflict,
    FlowNotFound,
    FlowRecord,
    InvalidName,
    LogBusy,
    NotInFlow,
    ScheduleOptions,
    Scheduler,
    SqliteExecutionLog,
    TaskStatus,
    UsageError,
    flow,
    step,
    wait_signal,
)
from ergon.scheduler import watching
from tests.stories.helpers import until, worker

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
        (["a", None], InvalidName, "must be a str"),
        ("ab", UsageError, "an id for each flow"),
    ],
)
async def test_ids_that_do_not_fit_are_refused_before_anything_is_started(
    log: ExecutionLog, given: Any, error: type[Exception], words: str
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


class FailingLog(SqliteExecutionLog):
    """Its looks at how flows stand fail when told to."""

    fails = False
    looks = 0

    async def ended_or_parked(self, flow_ids: Sequence[str]) -> tuple[list[FlowRecord], list[str]]:
        self.looks += 1
        if self.fails:
            raise LogBusy("it is busy")
        return await super().ended_or_parked(flow_ids)


async def test_what_the_log_raises_is_no_outcome_of_a_flow(path: Path) -> None:
    async with FailingLog(path) as log:
        scheduler = Scheduler(log)
        handles = await scheduler.schedule_all(map(held.bind, range(3)))
        log.fails = True
        for return_exceptions in (False, True):
            with pytest.raises(LogBusy):
                await scheduler.results(handles, 10, return_exceptions=return_exceptions)


@pytest.mark.parametrize("ends", ["log", "handle", "iterable", "first"])
async def test_results_that_end_early_leave_nobody_waiting_and_nothing_to_complain_of(
    path: Path, ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with FailingLog(path) as log:
        scheduler = Scheduler(log)
        handles: list[Any] = await scheduler.schedule_all(map(held.bind, range(3)))
        if ends == "log":
            log.fails = True
        elif ends == "handle":
            handles.append(None)
        elif ends == "first":
            handles = [scheduler.handle(f"none-{number}") for number in range(3)]

        def each() -> Iterator[Any]:
            yield from handles
            if ends == "iterable":
                raise ValueError("no more")

        with pytest.raises((LogBusy, AttributeError, ValueError, FlowNotFound)):
            await scheduler.results(each(), 10)
        log.fails = False
        await asyncio.sleep(0)
        looks = log.looks
        with pytest.raises(TimeoutError):
            await scheduler.handle((await scheduler.schedule(held.bind(1))).id).result(
                2.2 * watching.POLL_SECONDS
            )

        assert watching.watcher_of(log)._waiting == {}
        assert log.looks <= looks + 4, "one flow is looked at: at once, and with each poll"
        gc.collect()
    assert caplog.messages == []


async def test_a_look_that_began_before_a_retry_answers_nobody_who_came_after_it(path: Path) -> None:
    """What it read is old to them: the flow has been tried again since."""
    broken = True

    @step
    async def charge() -> str:
        if broken:
            raise ValueError("the bank is down")
        return "paid"

    @flow
    async def book() -> str:
        return await charge()

    class SlowLog(SqliteExecutionLog):
        """Hands on what it read only when it may."""

        may = asyncio.Event()
        read = asyncio.Event()
        looks = 0

        async def ended_or_parked(self, flow_ids: Sequence[str]) -> tuple[list[FlowRecord], list[str]]:
            self.looks += 1
            try:
                found = await super().ended_or_parked(flow_ids)
                self.read.set()
                await self.may.wait()
            finally:
                self.looks -= 1
            return found

    async with SlowLog(path) as log, worker(log, book):
        log.may.set()
        handle = await Scheduler(log).schedule(book.bind(), id="f")
        with pytest.raises(ValueError, match="the bank is down"):
            await handle.result(10)
        await until(lambda: not log.looks)  # the first result may have come before a look for it was over
        log.may.clear()
        log.read.clear()
        early = asyncio.create_task(handle.result(10))
        await log.read.wait()
        broken = False
        await handle.retry()
        late = asyncio.create_task(handle.result(10))
        await asyncio.sleep(0)
        log.may.set()

        with pytest.raises(ValueError, match="the bank is down"):
            await early
        assert await late == "paid"


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
