"""W5: short flows from the queue, by two worker processes; and how soon an idle worker begins one."""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.figures import percentile
from benchmarks.model import DBOS, ERGON, PYERGON, Bar, Figures, Params, Row, Workload
from benchmarks.places import place

if TYPE_CHECKING:
    from ergon import Scheduler


def ergon(params: Params) -> Figures:
    """Drain a full queue; feed idle workers; then one flow at a time, across processes and within one."""
    figures = asyncio.run(_drain(place(params, "drain"), params))
    figures |= asyncio.run(_feed(place(params, "feed"), params))
    return figures | asyncio.run(_latency_in_process(place(params, "latency"), params))


async def _drain(path: str, params: Params) -> Figures:
    """The queue is full and two processes stand ready: from `go` until the last flow ended, by the log's clock."""
    from benchmarks import flows
    from benchmarks.processes import worker_process
    from ergon import FlowFilter, Scheduler, TaskStatus, open_log

    count = params["flows"]
    async with open_log(path) as log:
        scheduler = Scheduler(log)
        start = time.perf_counter()
        await asyncio.gather(*(scheduler.schedule(flows.one_step.bind(n), id=str(n)) for n in range(count)))
        scheduled = time.perf_counter() - start
        with worker_process(path, "one_step") as one, worker_process(path, "one_step") as two:
            went = log.now()
            go(one, two)
            while (await scheduler.count()).get(TaskStatus.COMPLETED, 0) < count:
                await asyncio.sleep(0.02)
            records, key = await scheduler.list(FlowFilter(), limit=1000)
            while key is not None:
                page, key = await scheduler.list(FlowFilter(), limit=1000, after=key)
                records += page
    assert len(records) == count
    took = max(record.ended_at or 0.0 for record in records) - went
    return {"drain_flows_per_s": count / took, "unfinished": 0.0, "schedule_flows_per_s": count / scheduled}


async def _feed(path: str, params: Params) -> Figures:
    """Two processes are idle; this one schedules everything and awaits every result. Then one at a time."""
    from benchmarks import flows
    from benchmarks.processes import worker_process
    from ergon import Scheduler, open_log

    count = params["flows"]
    async with open_log(path) as log:
        scheduler = Scheduler(log)
        with ExitStack() as stack:
            workers = [stack.enter_context(worker_process(path, "one_step", "tell_moment")) for _ in range(2)]
            go(*workers)
            await (await scheduler.schedule(flows.one_step.bind(0), id="warm")).result()
            start = time.perf_counter()
            calls = (flows.one_step.bind(n) for n in range(count))
            handles = await asyncio.gather(
                *(scheduler.schedule(call, id=str(n)) for n, call in enumerate(calls))
            )
            await asyncio.gather(*(handle.result() for handle in handles))
            took = time.perf_counter() - start
            await asyncio.sleep(0.5)
            latency = await _latency(scheduler, params["times"])
    return {"feed_flows_per_s": count / took, **{f"across_{name}": value for name, value in latency.items()}}


async def _latency_in_process(path: str, params: Params) -> Figures:
    from benchmarks import flows

    async with flows.running(path, [flows.tell_moment]) as (_, scheduler):
        latency = await _latency(scheduler, params["times"])
    return {f"within_{name}": value for name, value in latency.items()}


async def _latency(scheduler: Scheduler, times: int) -> Figures:
    """From the call of `schedule` to the first body, with the worker idle each time."""
    from benchmarks import flows

    took, rng = [], random.Random(5)
    for _ in range(times):
        await asyncio.sleep(rng.uniform(0.005, 0.05))
        start = time.perf_counter()
        handle = await scheduler.schedule(flows.tell_moment.bind())
        took.append((await handle.result() - start) * 1000)
    return {"p50_ms": statistics.median(took), "p99_ms": percentile(took, 99)}


def go(*workers: subprocess.Popen[str]) -> None:
    """Start the workers that stand ready."""
    from benchmarks.processes import GO, say

    for worker in workers:
        say(worker, GO)


def _under_10_ms(figure: str) -> Bar:
    return Bar("under 10 ms", lambda m: m[ERGON][figure] < 10)


WORKLOAD = Workload(
    name="W5",
    title="Short flows from the queue, two worker processes",
    sides={ERGON: ergon},
    rivals={DBOS: {"flows": 200}, PYERGON: {"flows": 200}},
    rows=(
        Row(
            "drain a full queue",
            "drain_flows_per_s",
            "flows/s",
            Bar("at least 5,000", lambda m: m[ERGON]["drain_flows_per_s"] >= 5_000),
            more_is_better=True,
        ),
        Row("flows that never completed", "unfinished", ""),
        Row("schedule only", "schedule_flows_per_s", "flows/s", more_is_better=True),
        Row("idle workers: schedule to all results", "feed_flows_per_s", "flows/s", more_is_better=True),
        Row("to first step, across processes, median", "across_p50_ms", "ms", _under_10_ms("across_p50_ms")),
        Row("to first step, across processes, p99", "across_p99_ms", "ms"),
        Row("to first step, in process, median", "within_p50_ms", "ms", _under_10_ms("within_p50_ms")),
        Row("to first step, in process, p99", "within_p99_ms", "ms"),
    ),
    full={"flows": 2_000, "times": 60},
    quick={"flows": 1_000, "times": 20},
    notes=("rivals drain 200 flows; their rates do not grow with more",),
)
