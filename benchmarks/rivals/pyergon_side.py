"""pyergon on its SQLite, as its own documentation uses it. Runs in its own environment: imports nothing of ours.

`python pyergon_side.py WORKLOAD '{"folder": ...}'` prints figures as JSON, like every side.

It knows a step by its method's name, one record a name, so a flow of many steps needs a class of many methods.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

START = time.perf_counter()
from pyergon import Executor, Scheduler, Worker, flow, flow_type, step  # noqa: E402  # its import is measured
from pyergon.storage.sqlite import SqliteExecutionLog  # noqa: E402

IMPORTED = time.perf_counter()
STUCK_SECONDS = 5.0
"""Flows that have not completed when nothing has for this long never will."""
Params = dict[str, Any]
began: list[float] = []
lines: list[float] = []


def numbered_step(number: int) -> Any:
    async def body(_self: Any, value: int) -> int:
        began.append(time.perf_counter())
        return value + 1

    body.__name__ = f"step_{number}"
    return step(body)


def flow_of(steps: int, *, hold: bool = False) -> Any:
    """A flow object with so many steps: one after the other, or all at once. `hold`: it does not return then."""

    @flow
    async def in_sequence(self: Any) -> int:
        lines.append(time.perf_counter())
        number = 0
        for n in range(steps):
            number = await getattr(self, f"step_{n}")(number)
        lines.append(time.perf_counter())
        if hold:
            await asyncio.sleep(3600)
        return number

    @flow
    async def in_parallel(self: Any) -> float:
        start = time.perf_counter()
        await asyncio.gather(*(getattr(self, f"step_{n}")(n) for n in range(steps)))
        return time.perf_counter() - start

    methods = {f"step_{n}": numbered_step(n) for n in range(steps)}
    return flow_type(type("Steps", (), {**methods, "in_sequence": in_sequence, "in_parallel": in_parallel}))()


@dataclass
@flow_type
class OneStep:
    number: int

    @step
    async def add_one(self) -> int:
        began.append(time.perf_counter())
        return self.number + 1

    @flow
    async def run(self) -> int:
        return int(await self.add_one())


async def connect(folder: str) -> Any:
    log = SqliteExecutionLog(f"{folder}/pyergon.db")
    await log.connect()
    return log


async def settings(log: Any) -> dict[str, float]:
    """What its connection really uses: 2 is FULL, 1 is NORMAL; WAL counts as 1."""
    found = {}
    for pragma in ("synchronous", "journal_mode"):
        cursor = await log._connection.execute(f"PRAGMA {pragma}")
        found[pragma] = (await cursor.fetchone())[0]
    return {
        "pragma_synchronous": float(found["synchronous"]),
        "pragma_wal": float(found["journal_mode"].lower() == "wal"),
    }


async def w1(params: Params) -> dict[str, float]:
    log = await connect(params["folder"])
    await Executor(flow_of(params["warm"]), log, "warm").run(lambda f: f.in_sequence())
    began.clear()
    await Executor(flow_of(params["steps"]), log, "measured").run(lambda f: f.in_sequence())
    between = sorted((after - before) * 1000 for before, after in pairwise(began))
    figures = {"step_p50_ms": statistics.median(between), "step_p99_ms": between[-1 - len(between) // 100]}
    return {**figures, **await settings(log)}


async def w2(params: Params) -> dict[str, float]:
    log, target = await connect(params["folder"]), flow_of(params["steps"])
    await Executor(target, log, "warm").run(lambda f: f.in_sequence())
    began.clear()
    start = time.perf_counter()
    await asyncio.gather(
        *(Executor(target, log, f"flow-{n}").run(lambda f: f.in_sequence()) for n in range(params["flows"]))
    )
    took = time.perf_counter() - start
    steps = params["flows"] * params["steps"]
    assert len(began) == steps, f"{len(began)} bodies ran, not {steps}"
    rates = {"all_steps_per_s": steps / took, "steps_per_s": steps / (max(began) - min(began))}
    return {**rates, **await settings(log)}


async def w3(params: Params) -> dict[str, float]:
    log, target, took = await connect(params["folder"]), flow_of(params["steps"]), []
    for n in range(params["times"] + 1):
        outcome = await Executor(target, log, f"flow-{n}").run(lambda f: f.in_parallel())
        took.append(outcome.result)
    return {"gather_ms": statistics.median(took[1:]) * 1000, **await settings(log)}


async def w4(params: Params) -> dict[str, float]:
    """Cut a flow off after its steps and run it again under its id: every step is answered from the log."""
    figures: dict[str, float] = {}
    log = await connect(params["folder"])
    for label in ("small", "large"):
        steps, target = params[label], flow_of(params[label], hold=True)
        await until_last_step(target, log, label)
        began.clear()
        start = time.perf_counter()
        await until_last_step(target, log, label)
        assert not began, f"{len(began)} steps ran again"
        figures[f"{label}_per_s"] = steps / (lines[1] - start)
        figures[f"{label}_inside_per_s"] = steps / (lines[1] - lines[0])
        figures[f"{label}_us_per_event"] = (lines[1] - lines[0]) / steps * 1e6
    figures["linearity"] = figures["large_us_per_event"] / figures["small_us_per_event"]
    return {**figures, **await settings(log)}


async def until_last_step(target: Any, log: Any, flow_id: str) -> None:
    lines.clear()
    task = asyncio.ensure_future(Executor(target, log, flow_id).run(lambda f: f.in_sequence()))
    while len(lines) < 2 and not task.done():
        await asyncio.sleep(0.002)
    task.cancel()


async def w5(params: Params) -> dict[str, float]:
    """Two processes drain a queue; each begins when told."""
    folder, count = params["folder"], params["flows"]
    log = await connect(folder)
    if "worker" in params:
        worker = Worker(log, f"worker-{os.getpid()}").with_poll_interval(0.01)
        await worker.register(OneStep)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        await worker.start()
        await asyncio.sleep(3600)
    scheduler = Scheduler(log)
    start = time.perf_counter()
    for number in range(count):
        await scheduler.schedule(OneStep(number))
    scheduled = time.perf_counter() - start
    command = [sys.executable, __file__, "W5", json.dumps({**params, "worker": 1})]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None
        worker.stdout.readline()
    went = time.time()
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    database = sqlite3.connect(f"{folder}/pyergon.db", timeout=30)
    status = "SELECT count(*), max(updated_at) FROM flow_queue WHERE status = 'COMPLETE'"
    completed, last, seen_at = 0, went * 1000, time.monotonic()
    while completed < count and time.monotonic() - seen_at < STUCK_SECONDS:
        await asyncio.sleep(0.05)
        now_completed, now_last = database.execute(status).fetchone()
        if now_completed > completed:
            completed, last, seen_at = now_completed, now_last, time.monotonic()
    for worker in workers:
        worker.kill()
    figures = {
        "drain_flows_per_s": completed / (last / 1000 - went),
        "unfinished": float(count - completed),
        "schedule_flows_per_s": count / scheduled,
    }
    return {**figures, **await settings(log)}


async def w7(params: Params) -> dict[str, float]:
    start = time.perf_counter()
    log = await connect(params["folder"])
    await Executor(OneStep(1), log, "hello").run(lambda f: f.run())
    first = time.perf_counter() - start
    peak = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")
    )
    return {
        "import_names_ms": (IMPORTED - START) * 1000,
        "first_flow_ms": first * 1000,
        "peak_mib": int(peak.split()[1]) / 1024,
    }


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    workload = {"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W7": w7}[sys.argv[1]]
    print(json.dumps(asyncio.run(workload(json.loads(sys.argv[2])))), flush=True)
    os._exit(0)
