"""What the SQLite log costs beside the bare disk: lone commits, and many submitters on one event loop.

Each figure is the median of several rounds, ours and bare in turn, so that a busy machine slows both alike.
Run it with `python benchmarks/log_floor.py`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from ergon.core.commit import ClaimRequest, Commit, Lease, NewFlow, WorkerRecord
from ergon.core.history import Event
from ergon.storage.process import this_process
from ergon.storage.sqlite import SqliteExecutionLog

ROUNDS: Final = 5
LONE_COMMITS: Final = 2000
SUBMITTERS: Final = 1000
EVENTS_EACH: Final = 50
PAYLOAD: Final = '{"order":"' + "x" * 80 + '"}'


def event(seq: int) -> Event:
    return Event(
        seq, "step_completed", "0/1:1", "charge", "9f86d081884c7d65", PAYLOAD, time.time(), "shop.py:42", 1
    )


class BareWriter:
    """One thread, one connection, one row a commit: the least that asyncio can await."""

    def __init__(self, path: Path) -> None:
        self._jobs: SimpleQueue[Any] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(path,), daemon=True)
        self._thread.start()

    def submit(self, row: tuple[Any, ...], done: Callable[[], None]) -> None:
        self._jobs.put((row, done))

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _run(self, path: Path) -> None:
        bare = sqlite3.connect(path, isolation_level=None)
        bare.execute("PRAGMA journal_mode=WAL")
        bare.execute("PRAGMA synchronous=FULL")
        bare.execute(
            "CREATE TABLE events (flow_id TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT, op TEXT, name TEXT, "
            "digest TEXT, payload TEXT, at REAL, source TEXT, attempt INTEGER, UNIQUE (flow_id, seq)) STRICT"
        )
        while (job := self._jobs.get()) is not None:
            jobs = [job]
            while not self._jobs.empty() and len(jobs) < 500:
                jobs.append(self._jobs.get())
            bare.execute("BEGIN IMMEDIATE")
            bare.executemany("INSERT INTO events VALUES (?,?,?,?,?,?,?,?,?,?)", [row for row, _ in jobs])
            bare.execute("COMMIT")
            self._loop.call_soon_threadsafe(_call_all, [done for _, done in jobs])
        bare.close()


def _call_all(calls: list[Callable[[], None]]) -> None:
    for call in calls:
        call()


async def open_log(folder: Path, flows: int) -> tuple[SqliteExecutionLog, dict[str, Lease]]:
    log = await SqliteExecutionLog(folder / "ergon.db").connect()
    here = this_process()
    await log.register(
        WorkerRecord(
            id="w",
            name="w",
            host=here.host,
            pid=here.pid,
            process_start=here.process_start,
            boot_id=here.boot_id,
        ),
        lease_seconds=600,
    )
    await asyncio.gather(
        *(log.create(NewFlow(id=f"flow-{n:08d}", name="f", input="{}")) for n in range(flows))
    )
    claimed = await log.claim(ClaimRequest(worker="w", names=("f",), limit=flows))
    return log, {one.flow.id: one.lease for one in claimed}


async def lone_ours(folder: Path) -> float:
    log, leases = await open_log(folder, 1)
    ((flow, lease),) = leases.items()
    loop, took = asyncio.get_running_loop(), []
    for seq in range(1, LONE_COMMITS + 1):
        future = loop.create_future()
        started = time.perf_counter()
        log.submit(Commit(flow, lease, (event(seq),)), future.set_result)
        assert await future is None
        took.append(time.perf_counter() - started)
    await log.close()
    return statistics.median(took) * 1e6


async def lone_bare(folder: Path) -> float:
    bare = BareWriter(folder / "bare.db")
    loop, took = asyncio.get_running_loop(), []
    for seq in range(1, LONE_COMMITS + 1):
        future = loop.create_future()
        started = time.perf_counter()
        bare.submit(("flow-00000000", *event(seq)), partial(future.set_result, None))
        await future
        took.append(time.perf_counter() - started)
    bare.close()
    return statistics.median(took) * 1e6


async def many_ours(folder: Path) -> float:
    log, leases = await open_log(folder, SUBMITTERS)
    loop = asyncio.get_running_loop()

    async def submitter(flow: str, lease: Lease) -> None:
        for seq in range(1, EVENTS_EACH + 1):
            future = loop.create_future()
            log.submit(Commit(flow, lease, (event(seq),)), future.set_result)
            assert await future is None

    started = time.perf_counter()
    await asyncio.gather(*(submitter(flow, lease) for flow, lease in leases.items()))
    took = time.perf_counter() - started
    await log.close()
    return SUBMITTERS * EVENTS_EACH / took


async def many_bare(folder: Path) -> float:
    bare = BareWriter(folder / "bare.db")
    loop = asyncio.get_running_loop()

    async def submitter(flow: str) -> None:
        for seq in range(1, EVENTS_EACH + 1):
            future = loop.create_future()
            bare.submit((flow, *event(seq)), partial(future.set_result, None))
            await future

    started = time.perf_counter()
    await asyncio.gather(*(submitter(f"flow-{n:08d}") for n in range(SUBMITTERS)))
    took = time.perf_counter() - started
    bare.close()
    return SUBMITTERS * EVENTS_EACH / took


def one_round(measure: Callable[[Path], Any]) -> float:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        return float(asyncio.run(measure(Path(folder))))


def main() -> None:
    figures: dict[str, list[float]] = {"lone_ours": [], "lone_bare": [], "many_ours": [], "many_bare": []}
    measures = (lone_ours, lone_bare, many_ours, many_bare)
    for _ in range(ROUNDS):
        for measure in measures:
            figures[measure.__name__].append(one_round(measure))
    median = {name: statistics.median(values) for name, values in figures.items()}
    print(f"SQLite {sqlite3.sqlite_version}, Python {sys.version.split()[0]}, medians of {ROUNDS} rounds")
    print(
        f"lone commit, awaited:      {median['lone_ours']:9.0f} us   bare {median['lone_bare']:9.0f} us   "
        f"ratio {median['lone_ours'] / median['lone_bare']:.2f}"
    )
    print(
        f"{SUBMITTERS} submitters, FULL:     {median['many_ours']:9.0f} rows/s bare {median['many_bare']:6.0f} rows/s  "
        f"ratio {median['many_ours'] / median['many_bare']:.2f}"
    )


if __name__ == "__main__":
    main()
