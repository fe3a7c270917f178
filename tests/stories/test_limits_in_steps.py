"""A time limit around a durable wait inside a step ends the wait, wherever its flow is by then."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from ergon import (
    Completed,
    ExecutionLog,
    Executor,
    RetryPolicy,
    Scheduler,
    StepTimeout,
    Suspended,
    flow,
    schedule_timer_named,
    step,
    wait_signal,
)
from ergon.worker import residents
from tests.stories.conftest import SettableClock
from tests.stories.helpers import kinds, soon, start, until, until_status, worker

LIMIT_SECONDS = 0.5

began: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    began.clear()


@pytest.fixture
def evicts_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residents, "STEP_WAIT_EVICT_SECONDS", 0.05)


async def ask() -> str:
    began.append("waits")
    return await wait_signal("approval", str)


async def under_timeout() -> str:
    async with asyncio.timeout(LIMIT_SECONDS):
        return await ask()


async def under_wait_for() -> str:
    return await asyncio.wait_for(ask(), LIMIT_SECONDS)


async def in_a_task_under_timeout() -> str:
    async with asyncio.timeout(LIMIT_SECONDS), asyncio.TaskGroup() as group:
        answer = group.create_task(ask())
    return answer.result()


async def under_wait() -> str:
    done, pending = await asyncio.wait({asyncio.ensure_future(ask())}, timeout=LIMIT_SECONDS)
    for task in pending:
        task.cancel()
        raise TimeoutError
    return done.pop().result()


async def under_a_timer_of_its_own() -> str:
    task = asyncio.current_task()
    assert task is not None
    timer = asyncio.get_running_loop().call_later(LIMIT_SECONDS, lambda: cancel(task))
    try:
        return await ask()
    except asyncio.CancelledError:
        if task.uncancel():
            raise
        raise TimeoutError from None
    finally:
        timer.cancel()


def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()


class Scope:
    """A limit as libraries make them: the timer knows the scope, and the scope the tasks in it."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()

    def end(self) -> None:
        for task in self.tasks:
            task.cancel()


@contextlib.contextmanager
def scope() -> Iterator[None]:
    own, task = Scope(), asyncio.current_task()
    assert task is not None
    own.tasks.add(task)
    timer = asyncio.get_running_loop().call_later(LIMIT_SECONDS, own.end)
    try:
        yield
    except asyncio.CancelledError:
        if task.uncancel():
            raise
        raise TimeoutError from None
    finally:
        timer.cancel()


async def in_a_scope() -> str:
    with scope():
        return await ask()


WAYS: list[Callable[[], Coroutine[Any, Any, str]]] = [
    under_timeout,
    under_wait_for,
    in_a_task_under_timeout,
    under_wait,
    under_a_timer_of_its_own,
    in_a_scope,
]
EACH_WAY = pytest.mark.parametrize("way", range(len(WAYS)), ids=[way.__name__ for way in WAYS])


@step
async def impatient(way: int) -> str:
    try:
        return await WAYS[way]()
    except TimeoutError:
        return "too late"


@flow
async def process(way: int) -> str:
    return await impatient(way)


@step(timeout=LIMIT_SECONDS)
async def limited() -> str:
    return await ask()


@flow
async def process_limited() -> str:
    try:
        return await limited()
    except StepTimeout:
        return "too late"


@EACH_WAY
async def test_a_worker_keeps_a_flow_whose_body_waits_under_a_limit_of_its_own_until_that_is_over(
    log: ExecutionLog, evicts_soon: None, way: int
) -> None:
    async with worker(log, process):
        assert await (await start(log, process.bind(way))).result(10) == "too late"

    assert began == ["waits"]


@EACH_WAY
async def test_the_executor_stays_with_a_body_that_waits_under_a_limit_of_its_own(
    log: ExecutionLog, way: int
) -> None:
    assert await soon(Executor(process.bind(way), log, "f").run()) == Completed("too late")


@EACH_WAY
async def test_a_drain_does_not_wait_for_a_limit_which_begins_anew_elsewhere(
    log: ExecutionLog, way: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "LIMIT_SECONDS", 60.0)
    async with worker(log, process) as found:
        handle = await start(log, process.bind(way))
        await until(lambda: began)
        await soon(found.shutdown(30), within=5)

        assert await handle.status() == "pending"

    monkeypatch.setattr(sys.modules[__name__], "LIMIT_SECONDS", 0.1)
    async with worker(log, process):
        assert await handle.result(10) == "too late"


async def test_a_timer_that_interrupts_no_task_of_the_body_does_not_keep_its_flow(log: ExecutionLog) -> None:
    class Client:
        def __init__(self) -> None:
            self.connections = [object()]

    client = Client()

    @step
    async def ask_by_mail() -> str:
        asyncio.get_running_loop().call_later(60, client.connections.clear)
        return await ask()

    @flow
    async def by_mail() -> str:
        return await ask_by_mail()

    assert isinstance(await soon(Executor(by_mail.bind(), log, "f").run()), Suspended)


async def test_a_body_that_waits_for_a_durable_timer_does_not_keep_its_flow(log: ExecutionLog) -> None:
    @step
    async def sleep() -> None:
        await schedule_timer_named(60, "nap")

    @flow
    async def sleeps() -> None:
        await sleep()

    assert isinstance(await soon(Executor(sleeps.bind(), log, "f").run()), Suspended)


@contextlib.asynccontextmanager
async def evicted(log: ExecutionLog) -> AsyncIterator[Any]:
    """A worker that has let go the flow whose step has a limit."""
    async with worker(log, process_limited):
        handle = await start(log, process_limited.bind())
        await until_status(handle, "suspended")
        yield handle


async def test_the_limit_of_a_step_wakes_its_flow(log: ExecutionLog, evicts_soon: None) -> None:
    async with evicted(log) as handle:
        record = await log.find("f")
        assert record is not None
        assert record.wake_at is not None

        assert await handle.result(10) == "too late"

    assert began == ["waits", "waits"]


async def test_what_comes_in_time_is_received_by_a_body_that_was_let_go(
    log: ExecutionLog, evicts_soon: None
) -> None:
    async with evicted(log) as handle:
        await handle.signal("approval", "yes")

        assert await handle.result(10) == "yes"


async def test_a_step_that_is_let_go_again_and_again_has_no_more_time_than_one_attempt(
    log: ExecutionLog, clock: SettableClock
) -> None:
    @step(timeout=100)
    async def slow() -> str:
        return await ask()

    @flow
    async def process_slow() -> str:
        return await slow()

    executor = Executor(process_slow.bind(), log, "f")
    assert isinstance(await executor.run(), Suspended)
    record = await log.find("f")
    assert record is not None
    ends_at = record.wake_at
    assert ends_at is not None
    for word in ("one", "two"):  # it looks what came, which is for another
        clock.pass_time(40)
        await Scheduler(log).handle("f").signal(word)
        assert isinstance(await executor.run(), Suspended)
        record = await log.find("f")
        assert record is not None
        assert record.wake_at == pytest.approx(ends_at, abs=1)
    clock.pass_time(40)

    with pytest.raises(StepTimeout, match="longer than 100 s"):
        await executor.run()
    assert (await kinds(log)).count("step_waited") == 1


async def test_each_attempt_of_a_step_has_the_whole_limit(log: ExecutionLog, clock: SettableClock) -> None:
    @step(timeout=100, retry=RetryPolicy(attempts_max=2, first_delay_seconds=0))
    async def slow() -> str:
        return await ask()

    @flow
    async def process_slow() -> str:
        return await slow()

    executor = Executor(process_slow.bind(), log, "f")
    for _ in range(2):
        assert isinstance(await executor.run(), Suspended)
        record = await log.find("f")
        assert record is not None
        assert record.wake_at == pytest.approx(clock.wall() + 100, abs=1)
        clock.pass_time(110)

    with pytest.raises(StepTimeout):
        await executor.run()


async def test_a_restart_of_the_worker_does_not_lengthen_the_limit_of_a_step_that_waits(
    log: ExecutionLog, clock: SettableClock
) -> None:
    @step(timeout=100)
    async def slow() -> str:
        return await ask()

    @flow
    async def process_slow() -> str:
        return await slow()

    async with worker(log, process_slow) as found:
        handle = await start(log, process_slow.bind())
        await until(lambda: began)
        await soon(found.shutdown(30), within=5)
        assert await handle.status() == "suspended"

    clock.pass_time(110)
    async with worker(log, process_slow):
        with pytest.raises(StepTimeout):
            await handle.result(10)
