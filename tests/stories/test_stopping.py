"""A program of one's own drains when it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from ergon import FlowFilter, Scheduler, SqliteExecutionLog, TaskStatus, UsageError, wait_told_to_stop

PROGRAM = """
import asyncio, sys
from ergon import SqliteExecutionLog, Worker, flow, step, wait_told_to_stop

@step
async def slow(seconds: float) -> str:
    print("begins", flush=True)
    await asyncio.sleep(seconds)
    return "done"

@flow
async def works(seconds: float) -> str:
    return await slow(seconds)

async def main() -> None:
    async with SqliteExecutionLog(sys.argv[1]) as log, Worker(log, flows=[works]):
        number = await wait_told_to_stop()
        print("told by", number.name, flush=True)
    print("left", flush=True)

asyncio.run(main())
"""


ELSEWHERE = """
import asyncio, sys, time
from pathlib import Path
from ergon import SqliteExecutionLog, Worker, flow, step, wait_told_to_stop

@step(process=True)
def waits_for(mark: str) -> str:
    print("begins", flush=True)
    while not Path(mark).exists():
        time.sleep(0.01)
    return "done"

@flow
async def works(mark: str) -> str:
    return await waits_for(mark)

async def main() -> None:
    async with SqliteExecutionLog(sys.argv[1]) as log, Worker(log, flows=[works]):
        print("told by", (await wait_told_to_stop()).name, flush=True)
    print("left", flush=True)

if __name__ == "__main__":
    asyncio.run(main())
"""


async def start(path: Path, seconds: float) -> asyncio.subprocess.Process:
    async with SqliteExecutionLog(path) as log:
        await Scheduler(log).schedule_named("works", {"seconds": seconds}, id="f")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert await line_of(process) == "begins"
    return process


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(20):
        return (await process.stdout.readline()).decode().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_program_told_to_stop_lets_its_steps_end_and_leaves_nothing_leased(
    path: Path, number: signal.Signals
) -> None:
    process = await start(path, 0.5)

    process.send_signal(number)

    assert [await line_of(process), await line_of(process)] == [f"told by {number.name}", "left"]
    assert await process.wait() == 0
    async with SqliteExecutionLog(path) as log:
        assert await log.count(FlowFilter(statuses=(TaskStatus.RUNNING,))) == {}
        assert [event.kind for event in await log.history("f")] == ["step_completed"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_steps_in_processes_end_as_well_though_the_signal_reaches_these_too(
    path: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A terminal's Ctrl-C goes to all processes in front, and a service manager's SIGTERM to all of the service."""
    program, mark = tmp_path / "program.py", tmp_path / "mark"
    program.write_text(ELSEWHERE)
    async with SqliteExecutionLog(path) as log:
        await Scheduler(log).schedule_named("works", {"mark": str(mark)}, id="f")
    process = await asyncio.create_subprocess_exec(
        sys.executable, program, path, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    assert await line_of(process) == "begins"

    os.killpg(process.pid, number)

    assert await line_of(process) == f"told by {number.name}"
    mark.touch()
    assert await line_of(process) == "left"
    assert await process.wait() == 0
    async with SqliteExecutionLog(path) as log:
        assert [event.kind for event in await log.history("f")] == ["step_completed"]


async def test_a_second_signal_ends_the_program_at_once(path: Path) -> None:
    process = await start(path, 50)
    process.send_signal(signal.SIGTERM)
    assert await line_of(process) == "told by SIGTERM"

    process.send_signal(signal.SIGTERM)

    assert await process.wait() == -signal.SIGTERM


async def test_handlers_are_as_before_when_the_wait_is_cancelled() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await wait_told_to_stop()

    assert signal.getsignal(signal.SIGTERM) is before


async def test_one_signal_tells_all_that_wait_for_it() -> None:
    """A program may have a worker in each of several tasks; one that is not told would run on for ever."""
    before = signal.getsignal(signal.SIGTERM)
    waiting = [asyncio.create_task(wait_told_to_stop()) for _ in range(2)]
    await asyncio.sleep(0)

    os.kill(os.getpid(), signal.SIGTERM)

    async with asyncio.timeout(20):
        assert await asyncio.gather(*waiting) == [signal.SIGTERM] * 2
    assert signal.getsignal(signal.SIGTERM) is before


async def test_who_waits_is_told_though_another_who_waited_before_has_given_up() -> None:
    before = signal.getsignal(signal.SIGTERM)
    earlier, later = (asyncio.create_task(wait_told_to_stop()) for _ in range(2))
    await asyncio.sleep(0)
    earlier.cancel()
    await asyncio.wait([earlier])

    os.kill(os.getpid(), signal.SIGTERM)

    async with asyncio.timeout(20):
        assert await later is signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


async def test_a_handler_that_the_program_installs_meanwhile_stays() -> None:
    before = signal.getsignal(signal.SIGTERM)
    waiting = asyncio.create_task(wait_told_to_stop())
    await asyncio.sleep(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        waiting.cancel()
        await asyncio.wait([waiting])

        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_outside_the_main_thread_it_says_where_to_wait() -> None:
    with pytest.raises(UsageError, match="outside the main thread"):
        await asyncio.to_thread(asyncio.run, wait_told_to_stop())
