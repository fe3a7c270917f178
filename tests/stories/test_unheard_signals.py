"""A signal that was taken for a step's body comes to somebody, also when the process dies before the body has it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from ergon import ExecutionLog, Scheduler, SqliteExecutionLog, StepInterrupted, flow, step, wait_signal
from tests.stories.conftest import SettableClock
from tests.stories.helpers import ROOT, kinds, start, until, worker

began: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    began.clear()


@step(at_most_once=True)
async def ask_once() -> str:
    return await wait_signal("answer", str)


@step
async def ask() -> str:
    if began:
        await asyncio.Event().wait()  # it runs again, and its flow's time is over before it asks
    began.append("ask")
    return await wait_signal("answer", str)


@flow
async def asks_once() -> str:
    try:
        return f"step: {await ask_once()}"
    except StepInterrupted:
        return f"flow: {await wait_signal('answer', str)}"


@flow
async def asks_in_time() -> str:
    try:
        async with asyncio.timeout(5):
            return f"step: {await ask()}"
    except TimeoutError:
        return f"flow: {await wait_signal('answer', str)}"


@step
async def hear_and_wait() -> str:
    if began:
        await asyncio.Event().wait()
    began.append("hear and wait")
    heard = await wait_signal("answer", str)
    await wait_signal("never")
    return heard


@flow
async def hears_in_time() -> str:
    try:
        async with asyncio.timeout(5):
            return await hear_and_wait()
    except TimeoutError:
        pass
    try:
        async with asyncio.timeout(5):
            return await wait_signal("answer", str)
    except TimeoutError:
        return "nothing more"


FLOWS = (asks_once, asks_in_time, hears_in_time)

PROGRAM = """
import asyncio, sys
from ergon import SqliteExecutionLog, Worker
from tests.stories.test_unheard_signals import FLOWS

async def main():
    async with SqliteExecutionLog(sys.argv[1]) as log, Worker(log, flows=FLOWS):
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def killed_with_the_signal_taken(path: Path, commit: int, log: ExecutionLog) -> None:
    """Run the flow until the commit that takes its signal has landed; the process dies in that moment."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        str(path),
        cwd=ROOT,
        env=os.environ | {"ERGON_FAILPOINT": f"commit:{commit}:post"},
    )
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGKILL
    assert (await kinds(log))[-1] == "step_waited"


async def test_an_at_most_once_step_that_was_interrupted_as_it_got_a_signal_leaves_it_to_its_flow(
    log: SqliteExecutionLog, path: Path
) -> None:
    handle = await start(log, asks_once.bind())
    await handle.signal("answer", "yes")
    await killed_with_the_signal_taken(path, 2, log)

    async with worker(log, *FLOWS):
        assert await handle.result(20) == "flow: yes"
    assert (await kinds(log)).count("signal_returned") == 1


async def test_a_step_that_is_given_up_before_it_asks_again_leaves_its_signal_to_its_flow(
    log: SqliteExecutionLog, path: Path, clock: SettableClock
) -> None:
    handle = await start(log, asks_in_time.bind())
    await handle.signal("answer", "yes")
    await killed_with_the_signal_taken(path, 1, log)

    began.append("in that process")
    clock.pass_time(60)
    async with worker(log, *FLOWS):
        assert await handle.result(20) == "flow: yes"


async def test_a_signal_that_a_body_has_had_does_not_come_again_when_its_flow_was_away(
    log: ExecutionLog, clock: SettableClock
) -> None:
    handle = await start(log, hears_in_time.bind())
    await handle.signal("answer", "yes")
    async with worker(log, *FLOWS):
        await until(lambda: two_waits(log))
    assert await handle.status() == "suspended"

    clock.pass_time(60)
    async with worker(log, *FLOWS):
        await until(lambda: was_given_up(log))
        clock.pass_time(60)
        assert await handle.result(20) == "nothing more"
    assert "signal_returned" not in await kinds(log)


async def two_waits(log: ExecutionLog) -> bool:
    record = await Scheduler(log).handle("f").record()
    return "never" in record.reason


async def was_given_up(log: ExecutionLog) -> bool:
    return "abandoned" in await kinds(log) or "timer_fired" in await kinds(log)
