"""W9: how throughput grows with the number of worker processes on one log."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

from benchmarks.model import ERGON, Figures, Params, Row, Workload
from benchmarks.places import place
from benchmarks.w5_queue import go


def ergon(params: Params) -> Figures:
    """Flows of several steps stand ready; 1, 2 and 4 processes drain as many each time."""
    figures: Figures = {}
    for processes in (1, 2, 4):
        took = asyncio.run(_drain(place(params, f"by_{processes}"), params, processes))
        figures[f"by_{processes}_steps_per_s"] = params["flows"] * params["steps"] / took
    return figures


async def _drain(url: str, params: Params, processes: int) -> float:
    """From `go` until the last flow ended, by the log's clock."""
    from benchmarks import flows
    from benchmarks.processes import worker_process
    from ergon import FlowFilter, Scheduler, TaskStatus, open_log

    count = params["flows"]
    async with open_log(url) as log:
        scheduler = Scheduler(log)
        calls = (flows.in_sequence.bind(params["steps"]) for _ in range(count))
        await asyncio.gather(*(scheduler.schedule(call, id=str(n)) for n, call in enumerate(calls)))
        with ExitStack() as stack:
            workers = [stack.enter_context(worker_process(url, "in_sequence")) for _ in range(processes)]
            went = log.now()
            go(*workers)
            while (await scheduler.count()).get(TaskStatus.COMPLETED, 0) < count:
                await asyncio.sleep(0.05)
        last, key = 0.0, None
        while True:
            page, key = await scheduler.list(FlowFilter(), limit=1000, after=key)
            last = max([last, *(record.ended_at or 0.0 for record in page)])
            if key is None:
                return last - went


WORKLOAD = Workload(
    name="W9",
    title="One log, several worker processes",
    sides={ERGON: ergon},
    rows=tuple(
        Row(
            f"{n} worker process{'es' if n > 1 else ''}",
            f"by_{n}_steps_per_s",
            "steps/s",
            more_is_better=True,
        )
        for n in (1, 2, 4)
    ),
    full={"flows": 2_000, "steps": 10},
    quick={"flows": 500, "steps": 10},
    rounds=3,
    notes=(
        "2,000 flows of 10 steps; from `go` to the last flow's end. Compare with the number of cores above",
    ),
)
