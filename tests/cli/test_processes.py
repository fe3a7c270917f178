"""`ergon worker --processes N` with real processes: one that dies is started again, all stop together."""

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ergon import FlowFilter, Scheduler, SqliteExecutionLog, TaskStatus
from ergon.cli.fleet import DELAY_SECONDS, DELAY_SECONDS_MAX, SOUND_SECONDS, next_delay


class Told:
    """What a process has said so far."""

    def __init__(self, process: Any) -> None:
        self.process, self.lines = process, list[str]()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def pids(self, name: str) -> list[int]:
        return [
            int(found[1])
            for line in self.lines
            if (found := re.search(rf"{name} started \(pid (\d+)\)", line))
        ]

    async def until(self, condition: Callable[[], Any], within: float = 30.0) -> Any:
        ends = time.monotonic() + within
        while not (found := condition()):
            assert self.process.poll() is None, self.lines
            assert time.monotonic() < ends, self.lines
            await asyncio.sleep(0.02)
        return found


@pytest.fixture
def fleet(command: Callable[..., Any]) -> Callable[..., Told]:
    def start(*arguments: str) -> Told:
        return Told(command("worker", "shop.py", *arguments))

    return start


def serves(told: Told, *names: str) -> Callable[[], bool]:
    return lambda: all(
        any(line.startswith(f"{name}: ") and " runs " in line for line in told.lines) for name in names
    )


def is_alive(pid: int) -> bool:
    """False also for one that has ended and whose new parent has not asked how."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:  # it ended just now, or a system without /proc
        return not Path("/proc").exists()


async def schedule(log: SqliteExecutionLog, name: str, count: int, **arguments: Any) -> list[Any]:
    scheduler = Scheduler(log)
    return [await scheduler.schedule_named(name, arguments, id=f"{name}-{n}") for n in range(count)]


async def running(log: SqliteExecutionLog) -> int:
    return (await log.count(FlowFilter())).get(TaskStatus.RUNNING, 0)


async def test_a_child_that_is_killed_is_started_again_and_the_work_goes_on(fleet, here: Path) -> None:
    told = fleet("--processes", "2", "--name", "w")
    await told.until(serves(told, "w-1", "w-2"))
    (first,) = told.pids("w-1")
    async with SqliteExecutionLog("ergon.db") as log:
        handles = await schedule(log, "naps", 20, seconds=1.0)
        os.kill(first, signal.SIGKILL)
        await told.until(lambda: len(told.pids("w-1")) == 2)
        results = [await handle.result(timeout=30) for handle in handles]
        await told.until(lambda: sum("w-1: " in line and " runs " in line for line in told.lines) == 2)
        alive = {worker.name for worker in await log.workers() if worker.state == "alive"}

    assert results == ["rested"] * 20
    assert alive == {"w-1", "w-2"}
    assert any(
        re.search(r"w-1 was ended by SIGKILL after .* it is started again in 0\.5 s", line)
        for line in told.lines
    )
    assert len(told.pids("w-2")) == 1


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_told_to_stop_all_children_drain_and_nothing_stays_leased(
    fleet, here: Path, number: signal.Signals, code: int
) -> None:
    told = fleet("--processes", "2", "--name", "w", "--drain", "20")
    await told.until(serves(told, "w-1", "w-2"))
    async with SqliteExecutionLog("ergon.db") as log:
        handles = await schedule(log, "works", 6, seconds=1.0)
        notes = here / "notes.txt"
        await told.until(lambda: notes.exists() and len(notes.read_text().splitlines()) == 6)
        told.process.send_signal(number)
        await asyncio.to_thread(told.process.wait, 30)
        await asyncio.to_thread(told.thread.join)

        assert told.process.returncode == code
        assert await running(log) == 0
        assert not any(is_alive(pid) for name in ("w-1", "w-2") for pid in told.pids(name))
        assert {worker.state for worker in await log.workers()} == {"stopped"}
        histories = [await log.history(handle.id) for handle in handles]
    assert [[event.kind for event in history] for history in histories] == [["step_completed"]] * 6
    assert any(line.startswith("w-1: ") and line.endswith("stopped") for line in told.lines)
    assert any(line.startswith("w-2: ") and line.endswith("stopped") for line in told.lines)


async def test_told_twice_to_stop_everything_ends_at_once(fleet, here: Path) -> None:
    told = fleet("--processes", "2", "--name", "w")
    await told.until(serves(told, "w-1", "w-2"))
    async with SqliteExecutionLog("ergon.db") as log:
        await schedule(log, "works", 1, seconds=100.0)
        await told.until((here / "notes.txt").exists)
    told.process.send_signal(signal.SIGTERM)
    await told.until(lambda: any("stopping 2 workers" in line for line in told.lines))
    told.process.send_signal(signal.SIGTERM)

    assert await asyncio.to_thread(told.process.wait, 10) == 130
    pids = [*told.pids("w-1"), *told.pids("w-2")]
    await asyncio.to_thread(wait_until, lambda: not any(is_alive(pid) for pid in pids))


async def test_children_stop_when_their_parent_is_killed(fleet, here: Path) -> None:
    told = fleet("--processes", "2", "--name", "w")
    await told.until(serves(told, "w-1", "w-2"))
    pids = [*told.pids("w-1"), *told.pids("w-2")]

    told.process.kill()

    await asyncio.to_thread(wait_until, lambda: not any(is_alive(pid) for pid in pids))


def test_what_starting_again_would_not_mend_ends_the_parent_with_the_childs_words(
    command, here: Path
) -> None:
    process = command("worker", "nowhere.py", "--processes", "3")

    _, said = process.communicate(timeout=30)

    assert process.returncode == 2
    # Whichever is first to look.
    assert re.search(r"worker-[123]: ergon: there is no file nowhere\.py", said), said


def test_several_processes_cannot_share_a_log_in_memory(ergon) -> None:
    answer = ergon("worker", "shop.py", "--processes", "2", "--log", "memory:")

    assert answer.code == 2
    assert "one process's own" in answer.err


def test_a_child_that_dies_again_and_again_is_started_ever_later() -> None:
    delays = [next_delay(None, 0.1)]
    for _ in range(8):
        delays.append(next_delay(delays[-1], 0.1))

    assert delays[:4] == [DELAY_SECONDS, 1.0, 2.0, 4.0]
    assert delays[-1] == DELAY_SECONDS_MAX
    assert next_delay(delays[-1], SOUND_SECONDS) == DELAY_SECONDS


def wait_until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)
