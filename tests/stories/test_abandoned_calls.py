"""A plain function that goes on though nobody waits for it keeps no other from its thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from ergon import ExecutionLog, StepTimeout, flow, step
from ergon.executor import calls, threads
from ergon.executor.threads import StepThreads
from tests.stories.helpers import start, until, worker

release = threading.Event()


@pytest.fixture(autouse=True)
def let_go() -> Iterator[None]:
    release.clear()
    yield
    release.set()


def hang() -> None:
    release.wait(30)


@step(timeout=0.05)
def hangs() -> None:
    hang()


@step
def hangs_without_limit() -> None:
    hang()


@step
def quick() -> str:
    return "done"


@flow
async def times_out() -> None:
    await hangs()


@flow
async def stops_waiting() -> None:
    async with asyncio.timeout(0.05):
        await hangs_without_limit()


@flow
async def works() -> str:
    return await quick()


async def test_steps_that_timed_out_leave_their_threads_to_others(log: ExecutionLog) -> None:
    async with worker(log, times_out, works, step_threads=2, drain_seconds=0.0):
        for number in range(2):
            with pytest.raises(StepTimeout):
                await (await start(log, times_out.bind(), f"hangs-{number}")).result(10)

        assert await (await start(log, works.bind())).result(10) == "done"


async def test_steps_that_their_flow_stopped_waiting_for_leave_their_threads_to_others(
    log: ExecutionLog,
) -> None:
    async with worker(log, stops_waiting, works, step_threads=1, drain_seconds=0.0):
        with pytest.raises(TimeoutError):
            await (await start(log, stops_waiting.bind(), "hangs")).result(10)

        assert await (await start(log, works.bind())).result(10) == "done"


async def test_what_waits_behind_too_many_that_timed_out_is_told_once_and_runs_when_one_ends(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(log, times_out, works, step_threads=1, drain_seconds=0.0):
        for number in range(2):
            with pytest.raises(StepTimeout):
                await (await start(log, times_out.bind(), f"hangs-{number}")).result(10)
        with caplog.at_level(logging.WARNING, "ergon"):
            handles = [await start(log, works.bind(), f"works-{number}") for number in range(2)]
            await until(lambda: "wait for a thread" in caplog.text)
        release.set()

        assert [await handle.result(10) for handle in handles] == ["done", "done"]

    told = [record.message for record in caplog.records if "wait for a thread" in record.message]
    assert len(told) == 1
    assert "2 still run whose result nobody wants" in told[0]
    assert "step `hangs` of flow hangs-0, step `hangs` of flow hangs-1" in told[0]


def run_at_once(number: int, threads: StepThreads, *, within: float = 10.0) -> None:
    """Raises `BrokenBarrierError` when not that many calls do."""
    together = threading.Barrier(number, timeout=within)
    for future in [threads.submit(together.wait) for _ in range(number)]:
        future.result(10)


async def begun(threads: StepThreads) -> Future[None]:
    """A call that hangs, and has begun."""
    before = len(threads.running())
    future = threads.submit(hang)
    await until(lambda: len(threads.running()) == before + 1)
    return future


async def test_a_pool_has_no_more_threads_than_before_when_an_abandoned_call_has_ended() -> None:
    threads = StepThreads(2, describe=lambda: "a call")
    hanging = [await begun(threads) for _ in range(2)]
    for future in hanging:
        threads.abandon(future)
    run_at_once(2, threads)

    release.set()
    for future in hanging:
        future.result(10)

    with pytest.raises(threading.BrokenBarrierError):
        run_at_once(3, threads, within=0.3)
    run_at_once(2, threads)
    threads.shutdown()


async def test_a_call_that_has_ended_cannot_be_abandoned() -> None:
    threads = StepThreads(1, describe=lambda: "a call")
    for _ in range(3):
        future = threads.submit(str)
        future.result(10)
        threads.abandon(future)

    with pytest.raises(threading.BrokenBarrierError):
        run_at_once(2, threads, within=0.3)
    threads.shutdown()


async def test_threads_end_with_their_pool_also_those_of_abandoned_calls() -> None:
    before = threading.active_count()
    threads = StepThreads(1, describe=lambda: "a call")
    threads.abandon(await begun(threads))
    threads.submit(str).result(10)

    threads.shutdown()
    release.set()

    await until(lambda: threading.active_count() <= before)


async def test_a_step_waits_where_the_machine_gives_no_thread_and_begins_once(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was recorded as failed, and begun nevertheless by the next thread that there was."""
    begun: list[str] = []
    refusals = [RuntimeError("can't start new thread")] * 2

    class ScarceThread(threading.Thread):
        def start(self) -> None:
            if refusals:
                raise refusals.pop()
            super().start()

    @step
    def charge() -> str:
        begun.append("charge")
        return "paid"

    @flow
    async def pay() -> str:
        return await charge()

    monkeypatch.setattr(threads, "Thread", ScarceThread)
    monkeypatch.setattr(calls, "NO_THREAD_SECONDS", 0.05)
    async with worker(log, pay):
        assert await (await start(log, pay.bind())).result(10) == "paid"

    assert begun == ["charge"]
    assert refusals == []
    assert caplog.text.count("until this machine gives it a thread: can't start new thread") == 1
