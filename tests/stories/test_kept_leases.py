"""While an event loop is blocked, a thread renews the leases that it should; and only then, and only those."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

import pytest

from ergon import (
    Completed,
    ExecutionLog,
    Executor,
    SqliteExecutionLog,
    Worker,
    WorkerOptions,
    flow,
    step,
)
from ergon.executor import executor, keeper, processes
from ergon.executor.incarnation import Incarnation
from ergon.executor.keeper import KeptLease, LeaseKeeper
from tests.stories.helpers import start, until

LEASE = 0.5


async def test_nothing_starts_after_a_block_until_the_event_loop_has_renewed_itself(
    log: ExecutionLog,
) -> None:
    async with Incarnation(log, "w", ("job",), LEASE) as incarnation:
        assert incarnation.may_start()
        time.sleep(3 * LEASE)
        assert not incarnation.may_start(), "though a thread has renewed the lease"
        assert await log.reap() == [], "for it has"
        assert not incarnation.lost
        await until(incarnation.may_start, within=5.0)


@step
def hold(marks: str) -> None:
    Path(marks).mkdir()
    while not (Path(marks) / "release").exists():
        time.sleep(0.005)


@step
def begin(marks: str) -> None:
    (Path(marks) / "begun").touch()


hold_elsewhere = step(name="hold elsewhere", process=True)(hold.function)
begin_elsewhere = step(name="begin elsewhere", process=True)(begin.function)


@flow
async def one_after_the_other(marks: str, where: str) -> None:
    first, second = (hold, begin) if where == "thread" else (hold_elsewhere, begin_elsewhere)
    await asyncio.gather(first(marks), second(marks))


@pytest.mark.parametrize("where", ["thread", "process"])
async def test_a_step_that_waited_for_its_turn_does_not_begin_while_the_lease_is_in_doubt(
    log: ExecutionLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """It waited through a freeze of the worker: its flow may be another's, which has run the step to its end."""
    monkeypatch.setattr(processes, "PROCESSES_MAX", 1)
    marks, asked, doubted = tmp_path / "marks", threading.Event(), threading.Event()

    def may_start() -> bool:
        if doubted.is_set():
            asked.set()
        return not doubted.is_set()

    async with Worker(log, flows=[one_after_the_other], options=WorkerOptions(step_threads=1)) as working:
        handle = await start(log, one_after_the_other.bind(str(marks), where))
        await until(marks.exists, within=120.0)
        assert working._host is not None
        working._host.may_start = may_start
        doubted.set()
        (marks / "release").touch()
        await until(asked.is_set)
        await asyncio.sleep(0.1)
        assert not (marks / "begun").exists()

        doubted.clear()
        await handle.result(120)
        assert (marks / "begun").exists()


async def test_a_flow_under_executor_is_kept_while_its_step_blocks(
    log: ExecutionLog, path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "LEASE_SECONDS", LEASE)
    reaped: list[object] = []

    async def reap_meanwhile() -> None:
        async with SqliteExecutionLog(str(path)) as other:
            for _ in range(10):
                await asyncio.sleep(LEASE / 3)
                reaped.extend(await other.reap())

    @step
    async def block() -> str:
        reaper = threading.Thread(target=lambda: asyncio.run(reap_meanwhile()))
        reaper.start()
        reaper.join()
        return "done"

    @flow
    async def job() -> str:
        return await block()

    assert await Executor(job.bind(), log, "f").run() == Completed("done")
    assert reaped == []


async def test_an_incarnation_that_has_retired_is_not_kept(log: ExecutionLog) -> None:
    async with Incarnation(log, "w", ("job",), LEASE) as incarnation:
        assert keeper.shortest(threading.get_ident()) == LEASE
    assert keeper.shortest(threading.get_ident()) is None
    assert incarnation.id in [worker.id for worker in await log.workers() if worker.state == "stopped"]


async def test_an_incarnation_whose_task_was_cancelled_is_not_kept(log: ExecutionLog) -> None:
    """As when the event loop ends and nobody shut the worker down: the process may live on for long."""
    incarnation = Incarnation(log, "w", ("job",), LEASE)
    await incarnation.register()
    await asyncio.sleep(0)
    assert incarnation._task is not None
    incarnation._task.cancel()
    await asyncio.gather(incarnation._task, return_exceptions=True)

    assert keeper.shortest(threading.get_ident()) is None
    await until(log.reap, within=5.0)


def test_a_lease_whose_event_loop_does_not_run_any_more_is_not_renewed() -> None:
    asked: list[float] = []

    async def make() -> KeptLease:
        lease = KeptLease(lambda: asked.append(time.monotonic()), 0.04, time.monotonic())
        kept.keep(lease)
        time.sleep(0.2)
        return lease

    kept = LeaseKeeper()
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(make())
        assert asked
        time.sleep(0.1)
        count = len(asked)
        time.sleep(0.2)
        assert len(asked) == count
    finally:
        loop.close()


async def test_an_event_loop_that_renews_in_time_needs_no_thread(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(log, "keep_alive", lambda worker_id, lease_seconds: asked.append(worker_id))
    async with Incarnation(log, "w", ("job",), 4 * LEASE):
        await asyncio.sleep(5 * LEASE)
    assert asked == []


async def test_one_thread_keeps_all_and_ends_when_nobody_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LINGER_SECONDS", 0.0)
    kept, now = LeaseKeeper(), time.monotonic()
    first, second = KeptLease(print, 0.2, now), KeptLease(print, 0.4, now)
    kept.keep(first)
    thread = kept._thread
    kept.keep(second)
    assert kept._thread is thread
    assert thread is not None
    assert kept.shortest(threading.get_ident()) == 0.2
    kept.forget(first)
    kept.forget(second)
    kept.forget(second)
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    assert kept._thread is None


async def test_a_renewal_that_fails_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    kept, asked = LeaseKeeper(), threading.Event()

    def fail() -> None:
        if asked.is_set():
            again.set()
        asked.set()
        raise RuntimeError("no")

    again = threading.Event()
    lease = KeptLease(fail, 0.05, time.monotonic())
    with caplog.at_level(logging.DEBUG, "ergon"):
        kept.keep(lease)
        assert await asyncio.to_thread(again.wait, 10)
    kept.forget(lease)
    assert caplog.messages == []
