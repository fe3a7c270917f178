"""Whether claim, list, commit and the rest stay flat as the log grows: medians at each size, in microseconds.

`python -m benchmarks.log_growth [--store postgres] [flows ...]`; the default is SQLite with 1,000, 100,000 and
1,000,000 flows.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from benchmarks.model import POSTGRES, SQLITE
from benchmarks.servers import serving
from ergon import ExecutionLog, open_log
from ergon.core.commit import ClaimRequest, Commit, FlowFilter, NewFlow, Settled, WorkerRecord
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.storage.process import this_process
from ergon.storage.sqlite import SqliteExecutionLog


async def timed(repeat: int, call: Callable[[int], Awaitable[Any]]) -> float:
    took = []
    for n in range(repeat):
        started = time.perf_counter()
        await call(n)
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e6


COLUMNS = (
    "INSERT INTO flows (id, name, status, queue, priority, input, created_at, ended_at, wake_at, ready_at) "
    "SELECT 'old-' || i, CASE i % 6 WHEN 2 THEN 'ghost' ELSE 'f' END, "
    "CASE i % 3 WHEN 0 THEN 'completed' WHEN 1 THEN 'suspended' ELSE 'pending' END, "
    "CASE i % 6 WHEN 5 THEN 'elsewhere' ELSE 'default' END, 0, '{}', 1.0, CASE i % 3 WHEN 0 THEN 2.0 END, "
    "CASE i % 3 WHEN 1 THEN 9e9 END, CASE i % 3 WHEN 2 THEN 1.0 END "
)
"""A third ended, a third asleep, and a third ready that nobody here can run."""


async def fill(log: ExecutionLog, url: str, flows: int) -> None:
    """Put old flows into the store, past the log."""
    if isinstance(log, SqliteExecutionLog):
        await fill_file(log, flows)
        return
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute("SET search_path TO ergon")
    await connection.execute(f"{COLUMNS} FROM generate_series(1, {flows:d}) AS n (i)")
    await connection.execute(
        "INSERT INTO events SELECT id, s, 'step_completed', '0:1', 's', 'd', '{}', 1.0, 'f.py:1', 1 "
        "FROM flows, generate_series(1, 2) AS s"
    )
    await connection.execute("ANALYZE")  # as autovacuum has done long before there are so many
    await connection.close()


async def fill_file(log: SqliteExecutionLog, flows: int) -> None:
    """The same in a file."""

    def insert(connection: Any) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :flows) "
            + COLUMNS
            + "FROM n",
            {"flows": flows},
        )
        connection.execute(
            "INSERT INTO events SELECT num, s.value, 'step_completed', '0:1', 's', 'd', '{}', 1.0, 'f.py:1', 1 "
            "FROM flows, json_each('[1,2]') AS s"
        )
        connection.execute("COMMIT")

    await log._session.on_writer(insert)


async def measure(url: str, flows: int) -> dict[str, float]:
    async with open_log(url) as log:
        await fill(log, url, flows)
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
        claims: list[Any] = []
        loop = asyncio.get_running_loop()

        async def claim(_: int) -> None:
            claims.extend(await log.claim(ClaimRequest(worker="w", names=("f",), versions=("v1",), limit=1)))

        async def commit(n: int, settled: Settled | None = None) -> None:
            future = loop.create_future()
            one = claims[n]
            seq = 1 if settled is None else 2
            event = Event(seq, "step_completed", "0:1", "s", "d", "{}", 1.0, "f.py:1", 1)
            log.submit(Commit(one.flow.id, one.lease, (event,), settled=settled), future.set_result)
            assert await future is None

        found = {
            "create": await timed(200, lambda n: log.create(NewFlow(id=f"new-{n}", name="f", input="{}")))
        }
        found["claim"] = await timed(200, claim)
        found["commit"] = await timed(200, commit)
        found["settle"] = await timed(200, lambda n: commit(n, Settled(TaskStatus.COMPLETED, "1")))
        found["claim none"] = await timed(100, claim)
        found["claim any"] = await timed(100, lambda _: log.claim(ClaimRequest(worker="w", names=("f", "g"))))
        found["find"] = await timed(200, lambda n: log.find(f"old-{n}"))
        found["list"] = await timed(50, lambda _: log.list(FlowFilter(), limit=50))
        found["list parked"] = await timed(50, lambda _: log.list(FlowFilter(statuses=(TaskStatus.PARKED,))))
        found["list name"] = await timed(50, lambda _: log.list(FlowFilter(names=("nobody",))))
        found["next_wake"] = await timed(50, lambda _: log.next_wake(["f", "g"]))
        found["reap"] = await timed(50, lambda _: log.reap())
        found["arrivals"] = await timed(50, lambda _: log.arrivals("w", 0))
        found["count"] = await timed(3, lambda _: log.count(FlowFilter()))
        return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log_growth")
    parser.add_argument("--store", choices=(SQLITE, POSTGRES), default=SQLITE)
    parser.add_argument("flows", nargs="*", type=int, default=[1_000, 100_000, 1_000_000])
    given = parser.parse_args()
    sizes, rows = given.flows, {}
    with serving() as servers:
        for size in sizes:
            with tempfile.TemporaryDirectory() as folder:
                url = servers.fresh(POSTGRES) if given.store == POSTGRES else str(Path(folder) / "log.db")
                rows[size] = asyncio.run(measure(url, size))
    print(f"{'us':12}" + "".join(f"{size:>12,}" for size in sizes))
    for name in rows[sizes[0]]:
        print(f"{name:12}" + "".join(f"{rows[size][name]:12.0f}" for size in sizes))


if __name__ == "__main__":
    main()
