"""Ctrl-C and signals in the middle of a flow or a step: the process ends as asked, and no flow is lost."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ergon import ExecutionLog, FlowError, StepFailed, flow, step
from tests.stories.helpers import ROOT, kinds, start, worker

PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from ergon import Scheduler, SqliteExecutionLog, Worker, flow, step

HOW = os.environ.get("HOW", "")

def stop(place: str) -> None:
    if HOW == f"signal in {place}":
        signal.raise_signal(signal.SIGUSR1)
    if HOW == f"ctrl-c in {place}":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.raise_signal(signal.SIGINT)
    if HOW == f"second ctrl-c in {place}":
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    if HOW == f"own handler in {place}":
        signal.signal(signal.SIGINT, Handler())
        signal.raise_signal(signal.SIGINT)
    if HOW == f"handler that leaves in {place}":
        signal.signal(signal.SIGINT, leave_once)
        signal.raise_signal(signal.SIGINT)
    if HOW == f"clean-up in {place}":
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("cleaned up") from None

class Handler:
    def __call__(self, *arguments: object) -> None:
        raise KeyboardInterrupt

def leave_once(number: int, frame: object) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    raise KeyboardInterrupt

@step
async def note(name: str) -> str:
    with Path("ledger").open("a") as ledger:
        print(name, file=ledger)
    stop(name)
    if HOW == f"task of {name}":
        async with asyncio.TaskGroup() as group:
            group.create_task(struck())
    return name

async def struck() -> None:
    signal.raise_signal(signal.SIGINT)
    await asyncio.sleep(0.2)
    signal.raise_signal(signal.SIGINT)

@flow
async def work(name: str) -> str:
    stop("start")
    await note("first")
    stop("flow")
    await asyncio.sleep(0.01)
    stop("timer")
    await asyncio.gather(note("second"), note("third"))
    return name

async def main() -> None:
    async with SqliteExecutionLog("flows.db") as log, Worker(log, flows=[work]):
        handles = [await Scheduler(log).schedule(work.bind(id), id=id) for id in ("a", "b")]
        print(*[await handle.result() for handle in handles])

def leave(number: int, frame: object) -> None:
    sys.exit(4)

if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, leave)
    asyncio.run(main())
"""


def run(folder: Path, how: str) -> subprocess.CompletedProcess[str]:
    """Long before the 30 seconds that a drain waits for steps."""
    return subprocess.run(
        [sys.executable, "program.py"],
        cwd=folder,
        env={**os.environ, "HOW": how, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("place", ["start", "flow", "timer", "first", "second"])
@pytest.mark.parametrize(
    "what", ["signal", "ctrl-c", "second ctrl-c", "own handler", "handler that leaves", "clean-up"]
)
def test_the_process_ends_at_once_and_its_flows_go_on_in_the_next(
    what: str, place: str, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)

    ended = run(tmp_path, f"{what} in {place}")
    again = run(tmp_path, "")

    assert ended.returncode == (4 if what == "signal" else -2), ended.stderr
    assert "never retrieved" not in ended.stderr
    assert (again.returncode, again.stdout) == (0, "a b\n"), again.stderr
    names = (tmp_path / "ledger").read_text().split()
    open_at_exit = 2 if place in ("first", "second") else 0
    assert 6 <= len(names) <= 6 + open_at_exit, names


@pytest.mark.parametrize("name", ["first", "second"])
def test_ctrl_c_that_strikes_a_task_of_a_step_is_no_failure_of_the_step(name: str, tmp_path: Path) -> None:
    """The step hears of it when the handler that raised is gone already."""
    (tmp_path / "program.py").write_text(PROGRAM)

    ended = run(tmp_path, f"task of {name}")
    again = run(tmp_path, "")

    assert ended.returncode == -2, ended.stderr
    assert (again.returncode, again.stdout) == (0, "a b\n"), again.stderr


@step
def leaves() -> None:
    sys.exit("enough")


@step(process=True)
def leaves_elsewhere() -> None:
    sys.exit(5)


@step
async def leaves_at_once() -> None:
    sys.exit(6)


@step
async def leaves_later() -> None:
    await asyncio.sleep(0.01)
    sys.exit()


@step
def interrupts() -> None:
    raise KeyboardInterrupt("enough")


@step(process=True)
def interrupts_elsewhere() -> None:
    raise KeyboardInterrupt


@step
async def interrupts_at_once() -> None:
    raise KeyboardInterrupt


@step
async def interrupts_later() -> None:
    await asyncio.sleep(0.01)
    raise KeyboardInterrupt


@flow
async def meets_exits() -> list[str]:
    said = []
    for leave in (
        *(leaves, leaves_elsewhere, leaves_at_once, leaves_later),
        *(interrupts, interrupts_elsewhere, interrupts_at_once, interrupts_later),
    ):
        try:
            await leave()
        except StepFailed as error:
            said.append(str(error))
    return said


async def test_a_step_that_exits_fails_and_the_process_goes_on(log: ExecutionLog) -> None:
    async with worker(log, meets_exits):
        said = await (await start(log, meets_exits.bind())).result(30)

    exits = ["SystemExit: 'enough'", "SystemExit: 5", "SystemExit: 6", "SystemExit: None"]
    interruptions = ["enough", "raised by the step", "raised by the step", "raised by the step"]
    assert [text.split(";")[0] for text in said] == [
        *exits,
        *(f"KeyboardInterrupt: {text}" for text in interruptions),
    ]
    assert (await kinds(log)).count("step_failed") == 8


@flow
async def exits() -> None:
    await asyncio.sleep(0.01)
    sys.exit(3)


@flow
async def exits_at_once_in_a_task() -> None:
    async def leave() -> None:
        sys.exit(3)

    async with asyncio.TaskGroup() as group:
        group.create_task(leave())


@flow
async def interrupts_itself() -> None:
    await asyncio.sleep(0.01)
    raise KeyboardInterrupt


@pytest.mark.parametrize("leaving", [exits, exits_at_once_in_a_task, interrupts_itself])
async def test_a_flow_that_exits_fails_and_others_go_on(
    log: ExecutionLog, leaving: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(log, leaving, meets_exits):
        gone = await start(log, leaving.bind(), id="gone")
        other = await start(log, meets_exits.bind(), id="other")
        with pytest.raises(
            FlowError, match=r"(SystemExit: 3|KeyboardInterrupt: .*); a flow cannot end its process"
        ):
            await gone.result(30)
        assert len(await other.result(30)) == 8
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


@flow
async def exits_in_a_callback() -> str:
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(0.01)
    return "gone on"


async def test_a_callback_of_a_flow_that_exits_is_told_as_nobody_awaits_it(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(log, exits_in_a_callback):
        assert await (await start(log, exits_in_a_callback.bind())).result(30) == "gone on"
    told = [record for record in caplog.records if record.exc_info]

    assert [record.getMessage() for record in told] == ["flow f: exception in a callback"]


@step
def closes() -> None:
    raise GeneratorExit


@step(process=True)
def closes_elsewhere() -> None:
    raise GeneratorExit("enough")


@step
async def closes_at_once() -> None:
    raise GeneratorExit


@step
async def closes_later() -> None:
    await asyncio.sleep(0.01)
    raise GeneratorExit


@flow
async def meets_closing() -> list[str]:
    ended = await asyncio.gather(
        *(closing() for closing in (closes, closes_elsewhere, closes_at_once, closes_later)),
        return_exceptions=True,
    )
    return [str(error) for error in ended]


async def test_a_step_that_raises_generator_exit_fails_and_nothing_else_does(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    async with worker(log, meets_closing):
        said = await (await start(log, meets_closing.bind())).result(30)

    assert said == [
        "GeneratorExit: raised by the step",
        "GeneratorExit: enough",
        "GeneratorExit",
        "GeneratorExit",
    ]
    assert [
        record.getMessage() for record in caplog.records if record.exc_info or record.name == "asyncio"
    ] == []


CANCELS_ALL = """
import asyncio, sys
from ergon import Scheduler, SqliteExecutionLog, Worker, flow, step

@step
async def work(seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds

@flow
async def works(seconds: float) -> float:
    return await work(seconds)

def stop() -> None:
    if "exit" in sys.argv:
        sys.exit(3)
    for task in asyncio.all_tasks():
        task.cancel()

async def main() -> None:
    async with SqliteExecutionLog("flows.db") as log, Worker(log, flows=[works]):
        calls = [works.bind(seconds) for seconds in (0.7, 1.2, 2.0)]
        handles = await Scheduler(log).schedule_all(calls, ids=["a", "b", "c"])
        if sys.argv[1:]:
            asyncio.get_running_loop().call_later(0.4, stop)
        try:
            print(*await Scheduler(log).results(handles))
        finally:
            if "slowly" in sys.argv:
                await asyncio.sleep(1.5)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["cancel", "exit", "cancel slowly"])
def test_a_program_that_cancels_all_its_tasks_as_it_ends_fails_no_flow(how: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(CANCELS_ALL)

    def run_with(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "program.py", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    ended = run_with(*how.split())
    again = run_with()

    assert ended.returncode == (3 if how == "exit" else 1), ended.stderr
    assert (again.returncode, again.stdout) == (0, "0.7 1.2 2.0\n"), again.stderr
