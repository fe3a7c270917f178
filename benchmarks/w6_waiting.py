"""W6: thousands of flows that wait; what do they cost in memory and CPU, and are their timers on time?"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import random
import statistics
import time
from pathlib import Path

from benchmarks.figures import percentile
from benchmarks.model import ERGON, FLOOR, Bar, Figures, Params, Row, Workload, at_most
from benchmarks.places import place

PAGE_KIB = 4


def ergon(params: Params) -> Figures:
    """Waiting flows in memory and out of it, the worker at rest, and timers that fall due together."""
    figures = asyncio.run(_resident(place(params, "resident"), params["flows"]))
    figures |= asyncio.run(_evicted(place(params, "evicted"), params["flows"], params["rest_seconds"]))
    return figures | asyncio.run(_timers(place(params, "timers"), params["timers"], params["within_seconds"]))


async def _resident(path: str, flows: int) -> Figures:
    """Flows that wait for a signal, all in memory."""
    from benchmarks.flows import running, wait_for_go
    from ergon import TaskStatus, WorkerOptions

    options = WorkerOptions(capacity=flows + 1000, evict_after_seconds=3600)
    async with running(path, [wait_for_go], options) as (_, scheduler):

        async def wait_for(count: int, since: int) -> None:
            await asyncio.gather(
                *(scheduler.schedule(wait_for_go.bind(), id=str(since + n)) for n in range(count))
            )
            while (await scheduler.count()).get(TaskStatus.RUNNING, 0) < since + count:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)

        await wait_for(500, since=0)  # fills SQLite's page cache and the like
        before = memory_kib()
        await wait_for(flows, since=500)
        grown = memory_kib() - before
    return {"resident_kib_per_flow": grown / flows}


async def _evicted(path: str, flows: int, rest_seconds: float) -> Figures:
    """The same flows, let go to the log; then a worker that has nothing to do but be there."""
    from benchmarks.flows import running, wait_for_go
    from ergon import TaskStatus

    async with running(path, [wait_for_go]) as (_, scheduler):

        async def let_go(count: int, since: int) -> None:
            await asyncio.gather(
                *(scheduler.schedule(wait_for_go.bind(), id=str(since + n)) for n in range(count))
            )
            while (await scheduler.count()).get(TaskStatus.SUSPENDED, 0) < since + count:
                await asyncio.sleep(0.05)

        await let_go(2_000, since=0)
        before = memory_kib()
        await let_go(flows, since=2_000)
        grown = memory_kib() - before
        await asyncio.sleep(1.5)
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.sleep(rest_seconds)
        busy = (time.process_time() - cpu) / (time.perf_counter() - wall)
    return {"evicted_kib_per_flow": max(grown, 0.0) / flows, "idle_cpu_percent": busy * 100}


async def _timers(path: str, timers: int, within: float) -> Figures:
    """Flows that sleep until moments spread over some seconds; each tells when it went on, by the log's clock."""
    from benchmarks.flows import running
    from ergon import flow, now, step

    woke: list[float] = []

    @step
    async def awake(due: float) -> None:
        woke.append(log.now() - due)

    @flow
    async def sleeper(seconds: float) -> None:
        due = now().timestamp() + seconds
        await asyncio.sleep(seconds)
        await awake(due)

    rng = random.Random(6)
    async with running(path, [sleeper]) as (log, scheduler):
        delays = [2.0 + rng.uniform(0, within) for _ in range(timers)]
        calls = (sleeper.bind(delay) for delay in delays)
        handles = await asyncio.gather(*(scheduler.schedule(call, id=str(n)) for n, call in enumerate(calls)))
        lost = 0
        for handle in handles:
            try:
                await handle.result(timeout=within + 30)
            except TimeoutError:
                lost += 1
    return {"timers_lost": float(lost), **_lateness([late * 1000 for late in woke])}


def floor(params: Params) -> Figures:
    """As many bare asyncio timers, and a bare task that waits."""

    async def main() -> Figures:
        loop, rng = asyncio.get_running_loop(), random.Random(6)
        late: list[float] = []
        start = loop.time() + 0.5

        def fired(due: float) -> None:
            late.append((loop.time() - due) * 1000)

        for _ in range(params["timers"]):
            due = start + rng.uniform(0, params["within_seconds"])
            loop.call_at(due, fired, due)
        await asyncio.sleep(params["within_seconds"] + 1)
        before = memory_kib()
        waiting = [asyncio.ensure_future(asyncio.Event().wait()) for _ in range(params["flows"])]
        await asyncio.sleep(0)
        grown = memory_kib() - before
        for task in waiting:
            task.cancel()
        return {"resident_kib_per_flow": grown / params["flows"], **_lateness(late)}

    return asyncio.run(main())


def _lateness(late_ms: list[float]) -> Figures:
    return {
        "timers_early": float(sum(late < -0.001 for late in late_ms)),
        "late_p50_ms": statistics.median(late_ms),
        "late_p99_ms": percentile(late_ms, 99),
    }


def memory_kib() -> float:
    """What this process holds now, after giving back what it can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB


def _no_timer_lost_or_early() -> Bar:
    return Bar("none lost, none early", lambda m: m[ERGON]["timers_lost"] == 0 == m[ERGON]["timers_early"])


WORKLOAD = Workload(
    name="W6",
    title="Waiting flows",
    sides={ERGON: ergon, FLOOR: floor},
    rows=(
        Row("memory of a waiting flow, in memory", "resident_kib_per_flow", "KiB"),
        Row(
            "memory of a waiting flow, evicted",
            "evicted_kib_per_flow",
            "KiB",
            at_most("evicted_kib_per_flow", 0.5, "at most 0.5 KiB"),
        ),
        Row(
            "CPU of the worker at rest", "idle_cpu_percent", "%", at_most("idle_cpu_percent", 1, "under 1 %")
        ),
        Row("timers lost", "timers_lost", "", _no_timer_lost_or_early()),
        Row("timers early", "timers_early", "", _no_timer_lost_or_early()),
        Row("timers late, median", "late_p50_ms", "ms"),
        Row("timers late, p99", "late_p99_ms", "ms", at_most("late_p99_ms", 10, "under 10 ms")),
    ),
    full={"flows": 5_000, "rest_seconds": 10, "timers": 1_000, "within_seconds": 5},
    quick={"flows": 1_000, "rest_seconds": 2, "timers": 500, "within_seconds": 2.5},
    rounds=2,
    notes=(
        "floor: bare asyncio tasks that wait, bare asyncio timers",
        "a timer's lateness: from the moment the flow asked for to the body of its next step, commits included",
    ),
)
