"""W1: one flow of many sequential steps; how long is a step when nothing else runs?"""

from __future__ import annotations

import asyncio
import statistics
import time
from itertools import pairwise
from pathlib import Path

from benchmarks.figures import percentile
from benchmarks.model import DBOS, ERGON, FLOOR, PYERGON, Bar, Figures, Params, Row, Workload
from benchmarks.places import place


def ergon(params: Params) -> Figures:
    """The time from one body's begin to the next: body, commit, delivery, and the start of the next."""
    from benchmarks import flows

    async def main() -> None:
        async with flows.running(place(params, "ergon"), [flows.in_sequence]) as (_, scheduler):
            handle = await scheduler.schedule(flows.in_sequence.bind(params["warm"]), id="warm")
            await handle.result()
            flows.began.clear()
            handle = await scheduler.schedule(flows.in_sequence.bind(params["steps"]), id="measured")
            await handle.result()

    asyncio.run(main())
    return spans(flows.began)


def floor(params: Params) -> Figures:
    """The same between two awaited commits of one row by one writer thread; and rows a second in batches."""
    from benchmarks.floor import INSERT, BareWriter, connect, row, time_ms

    folder = Path(params["folder"])

    async def main() -> list[float]:
        writer = BareWriter(folder / "bare.db", group=False)
        for seq in range(params["warm"]):
            await writer.write(row("warm", seq))
        moments = []
        for seq in range(params["steps"] + 1):
            moments.append(time.perf_counter())
            await writer.write(row("measured", seq))
        writer.close()
        return moments

    figures = spans(asyncio.run(main()))
    connection = connect(folder / "batched.db")
    batches, size = 20, 500

    def write_batches() -> None:
        for batch in range(batches):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(INSERT, [row(str(batch), seq) for seq in range(size)])
            connection.execute("COMMIT")

    figures["batched_rows_per_s"] = batches * size / time_ms(write_batches) * 1000
    return figures


def spans(moments: list[float]) -> Figures:
    """The spread of the times between moments."""
    between = [(after - before) * 1000 for before, after in pairwise(moments)]
    return {"step_p50_ms": statistics.median(between), "step_p99_ms": percentile(between, 99)}


WORKLOAD = Workload(
    name="W1",
    title="One flow, sequential steps",
    sides={ERGON: ergon, FLOOR: floor},
    rivals={DBOS: {"warm": 10}, PYERGON: {}},
    rivals_quick=True,
    rows=(
        Row(
            "a step, median",
            "step_p50_ms",
            "ms",
            Bar(
                "at most 1.5 x an awaited bare commit",
                lambda m: m[ERGON]["step_p50_ms"] <= 1.5 * m[FLOOR]["step_p50_ms"],
            ),
        ),
        Row("a step, p99", "step_p99_ms", "ms"),
        Row("bare driver, rows in batches of 500", "batched_rows_per_s", "rows/s", more_is_better=True),
    ),
    full={"steps": 200, "warm": 50},
    quick={"steps": 100, "warm": 20},
    rounds=7,
    notes=("floor: one row, one durable commit, awaited by asyncio through one writer thread",),
)
