"""Words the stories share: start a worker that notices things quickly, wait for a condition, run somewhere else."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ergon import ExecutionLog, FlowHandle, Scheduler, Worker, WorkerOptions

ROOT = Path(__file__).resolve().parents[2]

QUICK = WorkerOptions(poll_seconds=0.1, reap_seconds=0.1, evict_after_seconds=0.05, drain_seconds=5.0)


def worker(log: ExecutionLog, *flows: Any, name: str = "worker", **options: Any) -> Worker:
    """A worker that looks often. Options of `Worker` and of `WorkerOptions` alike."""
    own = {
        key: options.pop(key)
        for key in ("queues", "versions", "tags", "enable_timers", "signal_sources")
        if key in options
    }
    return Worker(log, name, flows=flows, options=replace(QUICK, **options), **own)


async def until(condition: Callable[[], object], *, within: float = 10.0) -> None:
    """Wait until `condition()`, or what it gives to await, is true."""
    ends = time.monotonic() + within
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if time.monotonic() > ends:
            raise AssertionError(f"still not true after {within:g} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.005)


async def until_status(handle: FlowHandle[Any], *statuses: str, within: float = 10.0) -> None:
    """Wait until the flow stands at one of these."""

    async def stands() -> bool:
        return str(await handle.status()) in statuses

    await until(stands, within=within)


async def start(log: ExecutionLog, call: Any, id: str = "f", **options: Any) -> FlowHandle[Any]:
    """Schedule a flow."""
    return await Scheduler(log).schedule(call, id=id, **options)


async def kinds(log: ExecutionLog, flow_id: str = "f") -> list[str]:
    """The kinds of a flow's events, in order."""
    return [event.kind for event in await log.history(flow_id)]


async def soon(awaitable: Awaitable[Any], *, within: float = 10.0) -> Any:
    """Await, but not for ever."""
    async with asyncio.timeout(within):
        return await awaitable


def lines(path: Path) -> list[str]:
    """The effects that steps in any process have left in a file."""
    return path.read_text().splitlines() if path.exists() else []


@asynccontextmanager
async def process_with_worker(path: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own that runs the flows of `programs.py` on this log."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.stories.programs",
        str(path),
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        assert process.stdin is not None
        process.stdin.close()
        transport = process._transport  # type: ignore[attr-defined]
        transport.close()


async def freeze(pid: int, path: Path) -> None:
    """Stop a process by SIGSTOP, but not inside a transaction: there it keeps everybody from writing."""
    for _ in range(100):
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: _is_stopped(pid))
        if _can_write(path):
            return
        os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(0.003)
    raise AssertionError(f"process {pid} was always stopped inside a transaction")


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def _can_write(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path, timeout=0.2, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        return True
