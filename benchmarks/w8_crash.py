"""W8: a process dies in mid-flow; how soon does the flow go on?"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.model import ERGON, Bar, Figures, Params, Row, Workload, at_most
from benchmarks.places import place

LEASE_SECONDS = 2.0


def ergon(params: Params) -> Figures:
    """Kill a worker process in the middle of a flow and start it again; then with another beside it; then freeze one.

    The flow's steps write the time at which they began into a file; the longest silence there ends the wait.
    """
    return {
        "resume_ms": asyncio.run(_killed_and_started_again(params)),
        "takeover_ms": asyncio.run(_killed_beside_another(params)),
        "frozen_ms": asyncio.run(_frozen_beside_another(params)),
    }


async def _killed_and_started_again(params: Params) -> float:
    from benchmarks.processes import GO, READY, hear, say, started, worker_process

    log, trace = await _scheduled(params, "again")
    with worker_process(log, "traced", lease_seconds=LEASE_SECONDS) as first:
        say(first, GO)
        await _some_steps(trace)
        kill(first)
    died_at = last_moment(trace)
    start = time.perf_counter()
    with started(log, "traced", lease_seconds=LEASE_SECONDS) as second:
        say(second, GO)  # it reads this once it is up
        hear(second, READY)
        return await _next_step(trace, died_at, start)


async def _killed_beside_another(params: Params) -> float:
    return await _beside_another(params, "beside", kill)


async def _frozen_beside_another(params: Params) -> float:
    """Frozen, not dead: nobody can see that it is gone, so the other has to wait for its lease to end."""
    return await _beside_another(params, "frozen", lambda process: os.kill(process.pid, signal.SIGSTOP))


async def _beside_another(params: Params, name: str, stop: Callable[[subprocess.Popen[str]], None]) -> float:
    from benchmarks.processes import GO, say, worker_process

    log, trace = await _scheduled(params, name)
    with (
        worker_process(log, "traced", lease_seconds=LEASE_SECONDS) as first,
        worker_process(log, "traced", lease_seconds=LEASE_SECONDS) as second,
    ):
        say(first, GO)
        await _some_steps(trace)
        say(second, GO)
        await asyncio.sleep(0.5)
        await _new_step(trace)
        start = time.perf_counter()
        stop(first)
        await asyncio.sleep(0.1)
        try:
            return await _next_step(trace, last_moment(trace), start)
        finally:
            kill(first)


async def _scheduled(params: Params, name: str) -> tuple[str, Path]:
    from benchmarks import flows
    from ergon import Scheduler, open_log

    url, trace = place(params, name), Path(params["folder"]) / f"{name}.trace"
    async with open_log(url) as log:
        await Scheduler(log).schedule(flows.traced.bind(str(trace), 10_000), id=name)
    return url, trace


async def _some_steps(trace: Path) -> None:
    async with asyncio.timeout(30):
        await _twenty_steps(trace)


async def _twenty_steps(trace: Path) -> None:
    while not trace.exists() or trace.read_text().count("\n") < 20:
        await asyncio.sleep(0.01)


async def _new_step(trace: Path) -> None:
    """Wait until a step has just begun: its body runs, and no transaction of its process is open.

    SQLite's write lock cannot be taken from a process that was frozen while it held it.
    """
    before = last_moment(trace)
    while last_moment(trace) == before:
        await asyncio.sleep(0.001)


async def _next_step(trace: Path, after: float, start: float) -> float:
    """Wait for a step that began after that moment; how long after `start`, in ms."""
    deadline = time.perf_counter() + 60
    while time.perf_counter() < deadline:
        later = [moment for moment in moments(trace) if moment > after]
        if later:
            return (later[0] - start) * 1000
        await asyncio.sleep(0.005)
    raise TimeoutError("no step began within 60 s of the crash")


def moments(trace: Path) -> list[float]:
    """When each step began."""
    return [float(line) for line in trace.read_text().split("\n")[:-1]]


def last_moment(trace: Path) -> float:
    """When the last step began."""
    return moments(trace)[-1]


def kill(process: subprocess.Popen[str]) -> None:
    """`kill -9`."""
    process.kill()
    process.wait()


WORKLOAD = Workload(
    name="W8",
    title="kill -9 in mid-flow",
    sides={ERGON: ergon},
    rows=(
        Row("the same process started again, to its next step", "resume_ms", "ms",
            at_most("resume_ms", 200, "under 200 ms")),
        Row(
            "a worker beside it takes over, killed",
            "takeover_ms",
            "ms",
            Bar("within lease + 2 s", lambda m: m[ERGON]["takeover_ms"] <= (LEASE_SECONDS + 2) * 1000),
        ),
        Row(
            "a worker beside it takes over, frozen",
            "frozen_ms",
            "ms",
            Bar("within lease + 2 s", lambda m: m[ERGON]["frozen_ms"] <= (LEASE_SECONDS + 2) * 1000),
        ),
    ),
    full={},
    quick={},
    rounds=3,
    notes=(
        "resume includes starting Python and importing Ergon; the lease is 2 s here (default 10 s)",
        "a killed process on the same machine is noticed at once, a frozen one only when its lease ends",
        "frozen in a step's body: one frozen inside a transaction keeps SQLite's write lock, and everyone waits",
    ),
)  # fmt: skip
