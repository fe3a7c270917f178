"""Whether claim, list, commit and the rest stay flat as the log grows: medians at each size, in microseconds.

Run it with `python benchmarks/log_growth.py [flows ...]`; the default is 1,000, 100,000 and 1,000,000.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

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


async def fill(log: SqliteExecutionLog, flows: int) -> None:
    """A third ended, a third asleep, and a third ready that nobody here can run."""

    def insert(connection: Any) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :flows) "
            "INSERT INTO flows (id, name, status, queue, priority, input, created_at, ended_at, wake_at, ready_at) "
            "SELECT 'old-' || i, CASE i % 6 WHEN 2 THEN 'ghost' ELSE 'f' END, "
            "CASE i % 3 WHEN 0 THEN 'completed' WHEN 1 THEN 'suspended' ELSE 'pending' END, "
            "CASE i % 6 WHEN 5 THEN 'elsewhere' ELSE 'default' END, 0, '{}', 1.0, CASE i % 3 WHEN 0 THEN 2.0 END, "
            "CASE i % 3 WHEN 1 THEN 9e9 END, CASE i % 3 WHEN 2 THEN 1.0 END FROM n",
            {"flows": flows},
        )
        connection.execute(
            "INSERT INTO events SELECT num, s.value, 'step_completed', '0:1', 's', 'd', '{}', 1.0, 'f.py:1', 1 "
            "FROM flows, json_each('[1,2]') AS s"
        )
        connection.execute("COMMIT")

    await log._session.on_writer(insert)


async def measure(folder: Path, flows: int) -> dict[str, float]:
    async with SqliteExecutionLog(folder / "log.db", synchronous="NORMAL") as log:
        await fill(log, flows)
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
    sizes = [int(size) for size in sys.argv[1:]] or [1_000, 100_000, 1_000_000]
    rows = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            rows[size] = asyncio.run(measure(Path(folder), size))
    print(f"{'us':12}" + "".join(f"{size:>12,}" for size in sizes))
    for name in rows[sizes[0]]:
        print(f"{name:12}" + "".join(f"{rows[size][name]:12.0f}" for size in sizes))


if __name__ == "__main__":
    main()
