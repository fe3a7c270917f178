"""Ways in which a flow could get stuck or lose something, each seen once and closed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ergon import ExecutionLog, StepCancelled, StepFailed, TaskStatus, flow, invoke, step, wait_signal
from ergon.core.commit import Commit
from tests.stories.helpers import start, until, until_status, worker

SPAWN_SECONDS = 120
"""A process imports all of this file before its first step."""


class Odd(BaseException):
    """Not an Exception, as some test libraries raise."""


async def test_a_step_that_follows_a_signal_is_waited_for_by_a_shutdown(log: ExecutionLog) -> None:
    """The flow had been waiting: nothing may take it for a flow that still does."""
    running, finish = asyncio.Event(), asyncio.Event()

    @step
    async def work() -> str:
        running.set()
        await finish.wait()
        return "done"

    @flow
    async def process() -> str:
        await wait_signal("go")
        return await work()

    first = worker(log, process, evict_after_seconds=30)
    await first.start()
    handle = await start(log, process.bind())
    await until_status(handle, "running")
    await asyncio.sleep(0.1)
    await handle.signal("go")
    await running.wait()
    leaving = asyncio.create_task(first.shutdown())
    await asyncio.sleep(0.05)

    assert not leaving.done()
    finish.set()
    await leaving
    async with worker(log, process):
        assert await handle.result(10) == "done"


async def test_a_step_that_raises_outside_exception_fails_alone(log: ExecutionLog) -> None:
    @step
    async def odd() -> None:
        raise Odd("strange")

    @step
    async def plain() -> int:
        return 1

    @flow
    async def breaks() -> None:
        await odd()

    @flow
    async def works() -> int:
        return await plain()

    async with worker(log, breaks, works):
        broken = await start(log, breaks.bind(), "broken")
        fine = await start(log, works.bind(), "fine")

        with pytest.raises(StepFailed, match="Odd: strange"):
            await broken.result(10)
        assert await fine.result(10) == 1


@pytest.mark.parametrize("waits", [True, False])
async def test_a_step_that_cancels_its_own_task_fails_alone(log: ExecutionLog, waits: bool) -> None:
    @step
    async def cancels_itself() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if waits:
            await asyncio.sleep(0)
        return "went on"

    @step
    async def plain(number: int) -> int:
        await asyncio.sleep(0.01)
        return number

    @flow
    async def odd() -> str:
        return await cancels_itself()

    @flow
    async def works() -> list[int]:
        return await asyncio.gather(*(plain(number) for number in range(5)))

    async with worker(log, odd, works):
        strange = await start(log, odd.bind(), "strange")
        fine = await start(log, works.bind(), "fine")

        assert await fine.result(10) == [0, 1, 2, 3, 4]
        if waits:
            with pytest.raises(StepCancelled):
                await strange.result(10)
        else:
            assert await strange.result(10) == "went on"


async def test_a_plain_function_that_raises_stop_iteration_fails_its_step(log: ExecutionLog) -> None:
    @step
    def first_of_none() -> int:
        empty: list[int] = []
        return next(iter(empty))

    @flow
    async def process() -> int:
        return await first_of_none()

    async with worker(log, process):
        handle = await start(log, process.bind())

        with pytest.raises(RuntimeError, match="StopIteration"):
            await handle.result(10)


@step(process=True)
def first_of_none_elsewhere() -> int:
    empty: list[int] = []
    return next(iter(empty))


@flow
async def takes_the_first_elsewhere() -> int:
    return await first_of_none_elsewhere()


async def test_a_process_step_that_raises_stop_iteration_fails(log: ExecutionLog) -> None:
    """It would hang for ever: before Python 3.13 no future of asyncio takes such an error over from another."""
    async with worker(log, takes_the_first_elsewhere):
        handle = await start(log, takes_the_first_elsewhere.bind())

        with pytest.raises(RuntimeError, match="StopIteration"):
            await handle.result(SPAWN_SECONDS)


@pytest.mark.parametrize("loop", ["the worker's", "its own"])
async def test_a_step_inside_another_that_raises_stop_iteration_fails_that_one(
    log: ExecutionLog, loop: str
) -> None:
    @step
    def first_of_none() -> int:
        empty: list[int] = []
        return next(iter(empty))

    @step
    async def awaits() -> int:
        return await first_of_none()

    @step
    def runs() -> int:
        return asyncio.run(_of(first_of_none()))

    @flow
    async def process() -> int:
        return await (awaits() if loop == "the worker's" else runs())

    async with worker(log, process):
        handle = await start(log, process.bind())

        with pytest.raises(RuntimeError, match="StopIteration"):
            await handle.result(10)


async def _of(answer: Awaitable[int]) -> int:
    return await answer


async def test_a_wait_without_end_keeps_no_lease_from_being_renewed(log: ExecutionLog) -> None:
    @step
    async def plain() -> int:
        return 1

    @flow
    async def waits_for_ever() -> None:
        async with asyncio.timeout(math.inf):
            await wait_signal("never")

    @flow
    async def works() -> int:
        return await plain()

    async with worker(log, waits_for_ever, works, lease_seconds=0.5):
        endless = await start(log, waits_for_ever.bind(), "endless")
        await until_status(endless, "suspended")
        await asyncio.sleep(0.8)

        assert await (await start(log, works.bind(), "works")).result(10) == 1


async def test_a_timer_of_nan_seconds_is_refused(log: ExecutionLog) -> None:
    @flow
    async def process() -> str:
        try:
            await asyncio.sleep(math.nan)
        except Exception as error:
            return type(error).__name__
        return "slept"

    async with worker(log, process):
        assert await (await start(log, process.bind())).result(10) in ("UsageError", "ValueError")


async def test_a_flow_that_failed_while_it_was_cancelled_can_be_retried(log: ExecutionLog) -> None:
    cancelled_once: list[bool] = []

    @step
    async def one() -> int:
        return 1

    @flow
    async def process() -> int:
        if not cancelled_once:
            try:
                await wait_signal("never")
            finally:
                cancelled_once.append(True)
                raise ValueError("cleaning up failed")
        return await one()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "suspended", "running")
        await handle.cancel("enough")
        await until_status(handle, "failed")
        await handle.retry()

        assert await handle.result(10) == 1


async def test_a_signal_that_comes_as_its_wait_in_a_step_ends_is_kept_for_the_next(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal is being committed when the time limit of the wait is over."""
    submit = log.submit
    slow = asyncio.Event()

    def submit_slowly(commit: Commit, done: Callable[[BaseException | None], None]) -> None:
        if commit.consumed and not slow.is_set():
            slow.set()
            asyncio.get_running_loop().call_later(0.4, submit, commit, done)
        else:
            submit(commit, done)

    monkeypatch.setattr(log, "submit", submit_slowly)

    @step
    async def ask() -> list[str]:
        answers = []
        for _ in range(2):
            try:
                async with asyncio.timeout(0.3):
                    answers.append(await wait_signal("answer", str))
            except TimeoutError:
                answers.append("too late")
                await slow.wait()
                await asyncio.sleep(0.5)
        return answers

    @flow
    async def process() -> list[str]:
        return await ask()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "running")
        await asyncio.sleep(0.2)
        await handle.signal("answer", "yes")

        assert await handle.result(10) in (["too late", "yes"], ["yes", "too late"])


async def test_a_detached_child_asked_for_last_of_all_is_started(log: ExecutionLog) -> None:
    @flow
    async def child() -> str:
        return "ran"

    @flow
    async def parent() -> str:
        invoke(child.bind(), id="the-child", detached=True)
        return "over"

    async with worker(log, parent, child):
        assert await (await start(log, parent.bind())).result(10) == "over"

        async def ran() -> Any:
            record = await log.find("the-child")
            return record is not None and record.status is TaskStatus.COMPLETED

        await until(ran)
