"""DBOS Transact on its SQLite, as its own documentation uses it. Runs in its own environment: imports nothing of ours.

`python dbos_side.py WORKLOAD '{"folder": ...}'` prints figures as JSON, like every side.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

START = time.perf_counter()
from dbos import DBOS  # noqa: E402  # its import is measured

IMPORTED = time.perf_counter()
Params = dict[str, Any]
began: list[float] = []
lines: list[float] = []


@DBOS.step()
async def add_one(number: int) -> int:
    began.append(time.perf_counter())
    return number + 1


@DBOS.workflow()
async def in_sequence(steps: int) -> int:
    number = 0
    for _ in range(steps):
        number = await add_one(number)
    return number


@DBOS.workflow()
async def in_parallel(steps: int) -> float:
    start = time.perf_counter()
    await asyncio.gather(*(add_one(n) for n in range(steps)))
    return time.perf_counter() - start


@DBOS.workflow()
async def long(steps: int) -> int:
    lines.append(time.perf_counter())
    number = 0
    for _ in range(steps):
        number = await add_one(number)
    lines.append(time.perf_counter())
    await DBOS.recv_async("go", timeout_seconds=600)
    return number


@DBOS.workflow()
async def one_step(number: int) -> int:
    return int(await add_one(number))


def store_of(params: Params) -> str:
    """A server's database, or a file."""
    return str(params.get("url") or f"sqlite:///{params['folder']}/dbos.sqlite")


def launch(params: Params) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": store_of(params),
            "log_level": "CRITICAL",
            "console_log_level": "CRITICAL",
            "application_version": "1",
        }
    )
    logging.disable(logging.CRITICAL)
    DBOS.launch()


def settings() -> dict[str, float]:
    """What its connections really use: 2 is FULL; WAL counts as 1."""
    import sqlalchemy

    instance = sys.modules["dbos._dbos"]._get_dbos_instance()
    if not str(instance._sys_db.engine.url).startswith("sqlite"):
        return {}
    with instance._sys_db.engine.connect() as connection:
        synchronous = connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar()
        journal = connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar()
    return {"pragma_synchronous": float(synchronous), "pragma_wal": float(journal == "wal")}


async def w1(params: Params) -> dict[str, float]:
    launch(params)
    await (await DBOS.start_workflow_async(in_sequence, params["warm"])).get_result()
    began.clear()
    await (await DBOS.start_workflow_async(in_sequence, params["steps"])).get_result()
    between = sorted((after - before) * 1000 for before, after in pairwise(began))
    return {
        "step_p50_ms": statistics.median(between),
        "step_p99_ms": between[-1 - len(between) // 100],
        **settings(),
    }


async def w2(params: Params) -> dict[str, float]:
    launch(params)
    await (await DBOS.start_workflow_async(in_sequence, params["steps"])).get_result()
    began.clear()
    start = time.perf_counter()
    handles = await asyncio.gather(
        *(DBOS.start_workflow_async(in_sequence, params["steps"]) for _ in range(params["flows"]))
    )
    await asyncio.gather(*(handle.get_result() for handle in handles))
    took = time.perf_counter() - start
    steps = params["flows"] * params["steps"]
    assert len(began) == steps, f"{len(began)} bodies ran, not {steps}"
    return {"all_steps_per_s": steps / took, "steps_per_s": steps / (max(began) - min(began)), **settings()}


async def w3(params: Params) -> dict[str, float]:
    launch(params)
    await (await DBOS.start_workflow_async(in_parallel, 10)).get_result()
    took = [
        await (await DBOS.start_workflow_async(in_parallel, params["steps"])).get_result()
        for _ in range(params["times"])
    ]
    return {"gather_ms": statistics.median(took) * 1000, **settings()}


async def w4(params: Params) -> dict[str, float]:
    """Record in one process, replay by its recovery in another: inside the workflow, and from its launch on."""
    if "record" in params:
        launch(params)
        await DBOS.start_workflow_async(long, params["record"])
        while len(lines) < 2:
            await asyncio.sleep(0.01)
        print("{}", flush=True)
        os._exit(0)
    if "replay" in params:
        start = time.perf_counter()
        launch(params)
        while len(lines) < 2:
            await asyncio.sleep(0.002)
        took = {"inside": lines[1] - lines[0], "whole": lines[1] - start, **settings()}
        print(json.dumps(took), flush=True)
        os._exit(0)
    figures: dict[str, float] = {}
    for label in ("small", "large"):
        steps = params[label]
        folder = Path(params["folder"]) / label
        folder.mkdir()
        again({"record": steps, "folder": str(folder)})
        took = again({"replay": steps, "folder": str(folder)})
        figures[f"{label}_per_s"] = steps / took["whole"]
        figures[f"{label}_inside_per_s"] = steps / took["inside"]
        figures[f"{label}_us_per_event"] = took["inside"] / steps * 1e6
    figures["linearity"] = figures["large_us_per_event"] / figures["small_us_per_event"]
    return figures


def again(params: Params) -> dict[str, float]:
    """Run this program once more for a part of the workload."""
    command = [sys.executable, __file__, "W4", json.dumps(params)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(run.stdout.strip().splitlines()[-1])
    return found


async def w5(params: Params) -> dict[str, float]:
    """Two processes drain a queue; then one idle worker in process."""
    import sqlalchemy

    count = params["flows"]
    if "worker" in params:
        launch(params)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        os._exit(0)
    logging.disable(logging.CRITICAL)
    DBOS(config={"name": "bench", "system_database_url": store_of(params),
                 "log_level": "CRITICAL", "application_version": "1"})  # fmt: skip
    DBOS.listen_queues(["nobody"])  # this process only fills the queue
    DBOS.launch()
    await DBOS.register_queue_async("jobs", polling_interval_sec=0.01)
    await DBOS.register_queue_async("nobody")
    start = time.perf_counter()
    for number in range(count):
        await DBOS.enqueue_workflow_async("jobs", one_step, number)
    scheduled = time.perf_counter() - start
    command = [sys.executable, __file__, "W5", json.dumps({**params, "worker": 1})]
    workers = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(2)]
    instance = sys.modules["dbos._dbos"]._get_dbos_instance()
    table = "workflow_status" if "url" not in params else "dbos.workflow_status"
    done = sqlalchemy.text(
        f"SELECT count(*), min(started_at_epoch_ms), max(completed_at) FROM {table} WHERE status = 'SUCCESS'"
    )
    while True:
        with instance._sys_db.engine.connect() as database:
            ended, first, last = database.execute(done).one()
        if ended >= count:
            break
        await asyncio.sleep(0.05)
    figures = {
        "drain_flows_per_s": count / ((last - first) / 1000),
        "schedule_flows_per_s": count / scheduled,
    }
    for worker in workers:
        worker.kill()
    return {**figures, **settings()}


async def w7(params: Params) -> dict[str, float]:
    start = time.perf_counter()
    launch(params)
    await (await DBOS.start_workflow_async(one_step, 1)).get_result()
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
    workload = {"W1": w1, "W2": w2, "W3": w3, "W4": w4, "W5": w5, "W7": w7}[sys.argv[1]]
    print(json.dumps(asyncio.run(workload(json.loads(sys.argv[2])))), flush=True)
    os._exit(0)  # its threads may not want to end
