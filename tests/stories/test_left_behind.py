"""A plain function cannot be stopped: past the drain deadline it is abandoned, and the program may end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ergon import ExecutionLog, FlowError, StepTimeout, flow, step
from tests.stories.helpers import ROOT, lines, soon, start, until, worker

release = threading.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    release.clear()


PROGRAM = """
import asyncio, sys, time
from pathlib import Path
from ergon import Executor, Scheduler, SqliteExecutionLog, StepTimeout, Worker, WorkerOptions, flow, step

def hang(marks):
    with Path(marks).open("a") as file:
        file.write("began\\n")
    time.sleep(3_600)

on_thread = step(name="hang")(hang)
in_process = step(name="hang", process=True)(hang)
short = step(name="hang", timeout=0.2)(hang)

@step
async def inside(marks):
    await on_thread(marks)

@flow
async def stuck(marks: str, how: str) -> None:
    steps = {"on_thread": on_thread, "in_process": in_process, "short": short, "inside": inside}
    await steps[how](marks)

async def drained(path, marks, how):
    async with SqliteExecutionLog(path) as log:
        worker = await Worker(log, flows=[stuck]).start()
        await Scheduler(log).schedule(stuck.bind(marks, how), id="f")
        while not Path(marks).exists():
            await asyncio.sleep(0.01)
        await worker.shutdown(0.1)

async def ran(path, marks, how):
    async with SqliteExecutionLog(path) as log:
        try:
            await Executor(stuck.bind(marks, how), log, "f").run()
        except StepTimeout:
            pass

if __name__ == "__main__":
    asyncio.run((ran if sys.argv[3] == "short" else drained)(*sys.argv[1:]))
    print("main has returned")
"""


@pytest.mark.parametrize("how", ["on_thread", "in_process", "short", "inside"])
def test_a_program_ends_though_a_step_hangs(tmp_path: Path, how: str) -> None:
    """Python waits for the threads and processes of its own pools: this one would run for an hour."""
    program, marks = tmp_path / "program.py", tmp_path / "marks"
    program.write_text(PROGRAM)

    ended = subprocess.run(
        [sys.executable, program, tmp_path / "flows.db", marks, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert "main has returned" in ended.stdout
    assert lines(marks) == ["began"]
    assert "abandoned" in ended.stderr
    assert f"step `{'inside' if how == 'inside' else 'hang'}` of flow f" in ended.stderr


KILLED = """
import asyncio, os, signal
from ergon import Executor, InMemoryExecutionLog, flow, step

@step(process=True)
def pid() -> int:
    return os.getpid()

@flow
async def ask() -> int:
    return await pid()

async def main():
    async with InMemoryExecutionLog() as log:
        print((await Executor(ask.bind(), log, "f").run()).result, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_the_processes_of_steps_end_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    """Else each kill would leave them behind for good, and a step of a dead worker would go on beside its successor."""
    program = tmp_path / "program.py"
    program.write_text(KILLED)

    # Its output ends only when the last process that inherited it has: else this times out.
    killed = subprocess.run(
        [sys.executable, program],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=30,
        check=False,
    )

    assert killed.returncode == -signal.SIGKILL
    assert int(killed.stdout) > 0


LET_GO = """
async def let_go(path, marks, how):
    log = await SqliteExecutionLog(path).connect()
    await Worker(log, flows=[stuck]).start()
    await Scheduler(log).schedule(stuck.bind(marks, how), id="f")
    while not Path(marks).exists() or Path(marks).stat().st_size == 0:
        await asyncio.sleep(0.01)

if __name__ == "__main__":
    asyncio.new_event_loop().run_until_complete(let_go(*sys.argv[1:]))
    print("main has returned")
"""


@pytest.mark.parametrize("how", ["on_thread", "in_process"])
def test_a_program_ends_that_has_not_shut_its_worker_down(tmp_path: Path, how: str) -> None:
    program, marks = tmp_path / "program.py", tmp_path / "marks"
    program.write_text(PROGRAM.partition("if __name__")[0] + LET_GO)

    ended = subprocess.run(
        [sys.executable, program, tmp_path / "flows.db", marks, how],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert "main has returned" in ended.stdout
    assert lines(marks) == ["began"]


BROKEN_OFF = """
async def tell(log, marks):
    while not Path(marks).exists():
        await asyncio.sleep(0.01)
    print("works", flush=True)
    while [worker.state for worker in await log.workers()] != ["draining"]:
        await asyncio.sleep(0.01)
    print("drains", flush=True)

async def broken_off(path, marks, how):
    options = WorkerOptions(drain_seconds=3_600)
    async with SqliteExecutionLog(path) as log, Worker(log, flows=[stuck], options=options):
        await Scheduler(log).schedule(stuck.bind(marks, how), id="f")
        telling = asyncio.create_task(tell(log, marks))
        await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(broken_off(*sys.argv[1:]))
"""


@pytest.mark.parametrize("how", ["on_thread", "in_process"])
def test_a_second_interrupt_ends_a_program_that_waits_for_its_steps_to_end(tmp_path: Path, how: str) -> None:
    program, marks = tmp_path / "program.py", tmp_path / "marks"
    program.write_text(PROGRAM.partition("if __name__")[0] + BROKEN_OFF)
    with subprocess.Popen(
        [sys.executable, program, tmp_path / "flows.db", marks, how],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            assert running.stdout is not None
            for line in ("works", "drains"):
                assert running.stdout.readline().strip() == line
                os.killpg(running.pid, signal.SIGINT)

            assert running.wait(30) == -signal.SIGINT
        finally:
            running.kill()


async def test_what_a_shutdown_leaves_behind_is_named_and_runs_again(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []

    @step
    def hang() -> str:
        runs.append("began")
        assert release.wait(30)
        return "done"

    @flow
    async def stuck() -> str:
        return await hang()

    first = worker(log, stuck)
    await first.start()
    handle = await start(log, stuck.bind())
    await until(lambda: runs)
    with caplog.at_level(logging.WARNING, "ergon"):
        await soon(first.shutdown(0))

    assert "step `hang` of flow f" in caplog.text
    release.set()
    async with worker(log, stuck):
        assert await handle.result(10) == "done"
    assert runs == ["began", "began"]


async def test_a_shutdown_lets_a_function_end_whose_result_nobody_wants(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    """It timed out, and its flow has ended; it is not cut off in the middle as long as there is time."""
    ended: list[str] = []

    @step(timeout=0.05)
    def slow() -> None:
        assert release.wait(30)
        ended.append("slow")

    @flow
    async def impatient() -> None:
        await slow()

    async with worker(log, impatient):
        handle = await start(log, impatient.bind())
        with pytest.raises((StepTimeout, FlowError)):
            await handle.result(10)
        asyncio.get_running_loop().call_later(0.1, release.set)

    assert ended == ["slow"]
    assert "abandoned" not in caplog.text
