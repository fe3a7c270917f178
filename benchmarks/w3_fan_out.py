"""W3: one flow gathers many steps at once; what does durability cost beside the same gather in plain asyncio?"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.model import DBOS, ERGON, FLOOR, PYERGON, Bar, Figures, Params, Row, Workload
from benchmarks.places import place

if TYPE_CHECKING:
    from benchmarks.floor import EventRow


def ergon(params: Params) -> Figures:
    """The gather as the flow sees it: from its first line to the last result."""
    from benchmarks import flows

    async def main() -> list[float]:
        async with flows.running(place(params, "ergon"), [flows.in_parallel]) as (_, scheduler):
            took = []
            for n in range(params["times"] + 1):
                handle = await scheduler.schedule(flows.in_parallel.bind(params["steps"]), id=str(n))
                took.append(await handle.result())
            return took[1:]

    return {"gather_ms": statistics.median(asyncio.run(main())) * 1000}


def floor(params: Params) -> Figures:
    """The same gather without durability, and a bare commit."""
    from benchmarks.floor import BareWriter

    async def main() -> Figures:
        writer = BareWriter(Path(params["folder"]) / "bare.db", group=False)
        try:
            return await bare(params, writer.write)
        finally:
            writer.close()

    return asyncio.run(main())


async def bare(params: Params, write: Callable[[EventRow], Awaitable[object]]) -> Figures:
    """Gather, then commit a row, some times over."""
    from benchmarks.floor import row

    async def add_one(number: int) -> int:
        return number + 1

    gathers, commits = [], []
    for n in range(max(params["times"], 20)):
        start = time.perf_counter()
        await asyncio.gather(*(add_one(number) for number in range(params["steps"])))
        gathers.append(time.perf_counter() - start)
        start = time.perf_counter()
        await write(row("flow", n))
        commits.append(time.perf_counter() - start)
    return {"gather_ms": statistics.median(gathers) * 1000, "commit_ms": statistics.median(commits) * 1000}


WORKLOAD = Workload(
    name="W3",
    title="One flow, parallel steps",
    sides={ERGON: ergon, FLOOR: floor},
    rivals={DBOS: {"times": 1}, PYERGON: {"times": 1}},
    rows=(
        Row(
            "the gather",
            "gather_ms",
            "ms",
            Bar(
                "at most 3 x bare gather + 2 commits",
                lambda m: m[ERGON]["gather_ms"] <= 3 * m[FLOOR]["gather_ms"] + 2 * m[FLOOR]["commit_ms"],
            ),
        ),
        Row("a bare commit", "commit_ms", "ms"),
    ),
    full={"steps": 500, "times": 20},
    quick={"steps": 500, "times": 3},
    notes=("floor: the same gather in plain asyncio, nothing recorded",),
)
