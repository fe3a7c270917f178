"""W2: many concurrent flows in one process; how many durable steps a second?"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.model import (
    DBOS,
    ERGON,
    FLOOR,
    PYERGON,
    RESTATE,
    SAME_ROWS,
    Bar,
    Figures,
    Params,
    Row,
    Workload,
)
from benchmarks.places import place


def ergon(params: Params) -> Figures:
    """From the first `schedule` to the last result; and from the first body to the last."""
    from benchmarks import flows

    async def main() -> float:
        async with flows.running(place(params, "ergon"), [flows.in_sequence]) as (_, scheduler):
            await (await scheduler.schedule(flows.in_sequence.bind(params["steps"]), id="warm")).result()
            flows.began.clear()
            start = time.perf_counter()
            calls = [flows.in_sequence.bind(params["steps"]) for _ in range(params["flows"])]
            handles = await scheduler.schedule_all(calls, ids=map(str, range(params["flows"])))
            results = await scheduler.results(handles)
            took = time.perf_counter() - start
        assert results == [params["steps"]] * params["flows"]
        return took

    took = asyncio.run(main())
    return rates(params, took, flows.began)


def floor(params: Params) -> Figures:
    """Bare tasks on asyncio that write the steps' rows through one group-committing thread."""
    from benchmarks.floor import BareWriter, row

    async def main() -> float:
        writer = BareWriter(Path(params["folder"]) / "bare.db", group=True)

        async def task(name: str) -> None:
            for seq in range(params["steps"]):
                await writer.write(row(name, seq))

        start = time.perf_counter()
        await asyncio.gather(*(task(str(n)) for n in range(params["flows"])))
        took = time.perf_counter() - start
        writer.close()
        return took

    took = asyncio.run(main())
    return {"all_steps_per_s": params["flows"] * params["steps"] / took}


def same_rows(params: Params) -> Figures:
    """The same, with every row that Ergon writes, in its own tables."""
    from benchmarks.same_rows import write_flows

    path = Path(params["folder"]) / "same.db"
    took = asyncio.run(write_flows(path, count=params["flows"], steps=params["steps"]))
    return {"all_steps_per_s": params["flows"] * params["steps"] / took}


def rates(params: Params, took: float, began: list[float]) -> Figures:
    """Steps a second over everything, and while steps were running."""
    steps = params["flows"] * params["steps"]
    assert len(began) == steps, f"{len(began)} bodies ran, not {steps}"
    return {"all_steps_per_s": steps / took, "steps_per_s": steps / (max(began) - min(began))}


def _met(factor: float, side: str, text: str) -> Bar:
    figure = "all_steps_per_s"
    return Bar(text, lambda m: m[ERGON][figure] >= factor * m[side][figure])


WORKLOAD = Workload(
    name="W2",
    title="Many concurrent flows, one process",
    sides={ERGON: ergon, FLOOR: floor, SAME_ROWS: same_rows},
    rivals={DBOS: {"flows": 50}, PYERGON: {"flows": 200}, RESTATE: {}},
    rounds=15,
    rivals_quick=True,
    rows=(
        Row("schedule to last result", "all_steps_per_s", "steps/s", _met(50, DBOS, "at least 50 x DBOS"),
            more_is_better=True),
        Row("the same, against Restate", "all_steps_per_s", "steps/s", _met(10, RESTATE, "at least 10 x Restate"),
            more_is_better=True),
        Row("the same, against bare tasks", "all_steps_per_s", "steps/s",
            _met(1 / 3, SAME_ROWS, "at least a third of a bare group commit of the same rows"), more_is_better=True),
        Row("durable steps, first body to last", "steps_per_s", "steps/s", more_is_better=True,
            others={FLOOR: "all_steps_per_s", SAME_ROWS: "all_steps_per_s"}),
    ),
    full={"flows": 1000, "steps": 10},
    quick={"flows": 500, "steps": 10},
    notes=(
        "floor: bare asyncio tasks whose rows one thread group-commits, a row a step into one table of its own",
        "same rows: bare asyncio tasks that group-commit every row that Ergon writes for such a flow, into its tables",
        "restate: its server with its own settings, one handler that calls all flows, one process of granian on uvloop",
        "DBOS runs 50 flows of 10 steps and pyergon 200; their rates do not grow with more",
    ),
)  # fmt: skip
