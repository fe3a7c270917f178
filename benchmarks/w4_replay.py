"""W4: bring a flow with a long history back into memory; how many events a second, and is it linear?"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from benchmarks.model import DBOS, ERGON, FLOOR, PYERGON, Bar, Figures, Params, Row, Workload
from benchmarks.places import place


def ergon(params: Params) -> Figures:
    """Live, the flow runs its steps and waits for a signal; then a new log and a new worker replay it.

    `replay` is inside the flow, from its first line to the wait. `revive` is all of it, from the start of the worker
    on: register, claim, read and decode the history, replay.
    """
    from benchmarks import flows
    from ergon import WorkerOptions, flow, open_log, wait_signal

    lines: list[float] = []

    @flow
    async def long(steps: int) -> int:
        lines.append(time.perf_counter())
        number = 0
        for _ in range(steps):
            number = await flows.add_one(number)
        lines.append(time.perf_counter())
        await wait_signal("go", int)
        return number

    async def record(path: str, steps: int) -> None:
        async with flows.running(path, [long]) as (_, scheduler):
            await scheduler.schedule(long.bind(steps), id="long")
            while len(lines) < 2:
                await asyncio.sleep(0.01)

    async def replay(path: str, steps: int) -> tuple[float, float]:
        async with open_log(path) as log:
            from ergon import Scheduler, Worker

            handle = Scheduler(log).handle("long", int)
            await handle.signal("go", 1)  # makes it ready: a flow that waits for a signal is not claimed
            lines.clear()
            start = time.perf_counter()
            async with Worker(log, flows=[long], options=WorkerOptions()):
                assert await handle.result() == steps
        return lines[1] - start, lines[1] - lines[0]

    figures: Figures = {}
    for label, steps in (("small", params["small"]), ("large", params["large"])):
        path = place(params, label)
        lines.clear()
        asyncio.run(record(path, steps))
        whole, inside = asyncio.run(replay(path, steps))
        figures |= _rates(label, steps, inside, whole)
    figures["linearity"] = figures["large_us_per_event"] / figures["small_us_per_event"]
    return figures


def floor(params: Params) -> Figures:
    """Read the same rows with the bare driver, and decode each payload."""
    import msgspec

    from benchmarks.floor import INSERT, connect, row

    figures: Figures = {}
    for label, steps in (("small", params["small"]), ("large", params["large"])):
        connection = connect(Path(params["folder"]) / f"{label}.db")
        connection.execute("BEGIN")
        connection.executemany(INSERT, [row("long", seq) for seq in range(steps)])
        connection.execute("COMMIT")
        decode = msgspec.json.Decoder(int).decode
        start = time.perf_counter()
        rows = connection.execute("SELECT * FROM events WHERE flow_id = 'long' ORDER BY seq").fetchall()
        assert [decode(payload) for _, _, _, _, _, _, payload, *_ in rows] == list(range(steps))
        took = time.perf_counter() - start
        figures |= _rates(label, steps, took, took)
    return figures


def _rates(label: str, steps: int, inside: float, whole: float) -> Figures:
    return {
        f"{label}_per_s": steps / whole,
        f"{label}_inside_per_s": steps / inside,
        f"{label}_us_per_event": inside / steps * 1e6,
    }


WORKLOAD = Workload(
    name="W4",
    title="Replay",
    sides={ERGON: ergon, FLOOR: floor},
    rivals={DBOS: {"small": 100, "large": 500}, PYERGON: {"small": 200, "large": 1_000}},
    rows=(
        Row(
            "replay of a large history",
            "large_inside_per_s",
            "events/s",
            Bar("at least 100,000", lambda m: m[ERGON]["large_inside_per_s"] >= 100_000),
            more_is_better=True,
        ),
        Row("claim, read and replay it", "large_per_s", "events/s", more_is_better=True),
        Row("claim, read and replay a small one", "small_per_s", "events/s", more_is_better=True),
        Row(
            "per event, large against small",
            "linearity",
            "x",
            Bar("linear: at most 1.25", lambda m: m[ERGON]["linearity"] <= 1.25),
        ),
    ),
    full={"small": 2_000, "large": 20_000},
    quick={"small": 500, "large": 5_000},
    rounds=3,
    notes=(
        "small and large: 2,000 and 20,000 steps one after the other; DBOS 100 and 500, pyergon 200 and 1,000",
        "floor: the bare driver reads the rows and decodes their payloads",
    ),
)
