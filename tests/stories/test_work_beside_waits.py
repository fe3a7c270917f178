"""A step body that computes in one branch while it waits durably in another is not cut off."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from ergon import Completed, ExecutionLog, Executor, Scheduler, Suspended, flow, step, wait_signal
from ergon.executor import executor
from tests.stories.helpers import soon, start, until, until_status, worker

did: list[str] = []
go = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    did.clear()
    go.clear()


async def compute() -> str:
    did.append("began")
    while not go.is_set():  # as a call to another system, it waits for something that Ergon knows nothing of
        await asyncio.sleep(0.01)
    did.append("computed")
    return "computed"


async def compute_on_a_thread() -> str:
    return await asyncio.to_thread(block)


def block() -> str:
    did.append("began")
    assert go.wait(30)
    did.append("computed")
    return "computed"


async def ask() -> str:
    return await wait_signal("approval", str)


async def with_a_task(work: Callable[[], Coroutine[Any, Any, str]]) -> list[str]:
    task = asyncio.create_task(work())
    answer = await ask()
    return [await task, answer]


async def with_gather(work: Callable[[], Coroutine[Any, Any, str]]) -> list[str]:
    return list(await asyncio.gather(work(), ask()))


async def with_a_group(work: Callable[[], Coroutine[Any, Any, str]]) -> list[str]:
    async with asyncio.TaskGroup() as group:
        one, other = group.create_task(work()), group.create_task(ask())
    return [one.result(), other.result()]


async def with_wait(work: Callable[[], Coroutine[Any, Any, str]]) -> list[str]:
    tasks = [asyncio.create_task(work()), asyncio.create_task(ask())]
    await asyncio.wait(tasks)
    return [task.result() for task in tasks]


async def with_nested_tasks(work: Callable[[], Coroutine[Any, Any, str]]) -> list[str]:
    async def inner() -> list[str]:
        return await with_a_group(work)

    return await asyncio.create_task(inner())


WAYS = [with_a_task, with_gather, with_a_group, with_wait, with_nested_tasks]


@step
async def both(way: int, *, on_a_thread: bool = False) -> list[str]:
    return await WAYS[way](compute_on_a_thread if on_a_thread else compute)


@flow
async def process(way: int, on_a_thread: bool = False) -> list[str]:
    return await both(way, on_a_thread=on_a_thread)


@pytest.mark.parametrize("on_a_thread", [False, True], ids=["loop", "thread"])
@pytest.mark.parametrize("way", range(len(WAYS)), ids=[way.__name__ for way in WAYS])
async def test_the_executor_leaves_a_flow_when_its_body_only_waits(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, way: int, on_a_thread: bool
) -> None:
    looks = count_looks(monkeypatch)
    call = process.bind(way, on_a_thread)
    running = asyncio.create_task(Executor(call, log, "f").run())
    await until(lambda: did)
    await until(lambda: len(looks) > 1 or running.done())
    assert not running.done(), "it still computes"
    go.set()

    assert isinstance(await soon(running), Suspended)
    assert did == ["began", "computed"]
    await Scheduler(log).handle("f").signal("approval", "yes")
    assert await soon(Executor(call, log, "f").run()) == Completed(["computed", "yes"])


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """How often the executor considered to let the flow go."""
    looks: list[Any] = []
    leave = executor._leave_if_idle

    def counted(run: Any, since: float | None) -> None:
        looks.append(since)
        leave(run, since)

    monkeypatch.setattr(executor, "_leave_if_idle", counted)
    return looks


@contextlib.asynccontextmanager
async def computing(log: ExecutionLog, **options: Any) -> AsyncIterator[Any]:
    found = worker(log, process, other, **options)
    await found.start()
    await start(log, process.bind(0))
    await until(lambda: did)
    try:
        yield found
    finally:
        go.set()
        await found.shutdown()


@flow
async def other() -> None:
    did.append("other")


async def test_a_flow_whose_body_computes_does_not_make_room(log: ExecutionLog) -> None:
    async with computing(log, capacity=1):
        handle = await start(log, other.bind(), "other")
        asyncio.get_running_loop().call_later(0.3, go.set)
        await handle.result(10)

    assert did == ["began", "computed", "other"]


async def test_a_drain_lets_a_body_compute_that_also_waits(log: ExecutionLog) -> None:
    async with computing(log) as found:
        asyncio.get_running_loop().call_later(0.2, go.set)
        await soon(found.shutdown(30))

        assert did == ["began", "computed"]
        await until_status(Scheduler(log).handle("f"), "suspended", "pending")


async def test_a_body_that_still_computes_at_the_deadline_goes_on_elsewhere_at_once(
    log: ExecutionLog,
) -> None:
    """Nothing wakes a suspended flow but its signal: the work would stay undone until then."""
    async with computing(log) as found:
        await found.shutdown(0)

        assert await Scheduler(log).handle("f").status() == "pending"
