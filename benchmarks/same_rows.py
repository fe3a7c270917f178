"""Bare asyncio that group-commits the same rows as Ergon: into Ergon's own tables, and nothing else.

One flow is run by Ergon first. Every row that it left is a template: a bare task writes the flow's row, one row a
step, and at the end what the flow's row became. So this floor follows Ergon's schema, with its indexes, and leaves out
all that is not a row: no fence, no claim, no replay, no codec, nobody who waits for a result elsewhere.
"""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import flows
from benchmarks.floor import BareWriter

SETTLES = ("status", "output", "ended_at", "owner", "claimed_seq")
"""What the end of a flow changes in its row."""
RUNNING = {"status": "running", "output": None, "ended_at": None, "owner": "bench", "claimed_seq": 0}
"""What stands there before."""


class Templates(NamedTuple):
    """The rows of one flow and the statements that write them; `?1` in each is the flow's number."""

    insert: str
    append: str
    settle: str
    flow: tuple[Any, ...]
    events: tuple[tuple[Any, ...], ...]
    outcome: tuple[Any, ...]

    def rows_of(self, number: int) -> list[tuple[str, tuple[Any, ...]]]:
        """What one flow writes, in order: each statement with its parameters."""
        begun = (self.insert, (number, str(number), *self.flow))
        steps = [(self.append, (number, *event)) for event in self.events]
        return [begun, *steps, (self.settle, (number, *self.outcome))]


async def prepare(path: Path, steps: int) -> Templates:
    """Make a log, let Ergon run one flow in it, and read the rows that this left."""
    async with flows.running(str(path), [flows.in_sequence]) as (_, scheduler):
        await (await scheduler.schedule(flows.in_sequence.bind(steps), id="template")).result()
    with closing(sqlite3.connect(path)) as reader:
        reader.row_factory = sqlite3.Row
        flow = dict(reader.execute("SELECT * FROM flows").fetchone())
        events = [dict(row) for row in reader.execute("SELECT * FROM events ORDER BY seq")]
    assert len(events) == steps, f"{len(events)} rows of {steps} steps"
    first = {name: value for name, value in {**flow, **RUNNING}.items() if name not in {"num", "id"}}
    event_columns = [name for name in events[0] if name != "flow_num"]
    return Templates(
        insert=f"INSERT INTO flows (num, id, {', '.join(first)}) VALUES ({_marks(len(first) + 2)})",
        append=f"INSERT INTO events (flow_num, {', '.join(event_columns)}) VALUES ({_marks(len(event_columns) + 1)})",
        settle=f"UPDATE flows SET {', '.join(f'{name} = ?{n}' for n, name in enumerate(SETTLES, 2))} WHERE num = ?1",
        flow=tuple(first.values()),
        events=tuple(tuple(event[name] for name in event_columns) for event in events),
        outcome=tuple(flow[name] for name in SETTLES),
    )


def _marks(count: int) -> str:
    return ", ".join(f"?{number}" for number in range(1, count + 1))


async def write_flows(path: Path, *, count: int, steps: int) -> float:
    """Write the rows of `count` flows, each flow awaiting one after the other; return how many seconds it took."""
    templates = await prepare(path, steps)
    loop = asyncio.get_running_loop()
    writer = BareWriter(path, group=True)

    async def task(number: int) -> None:
        for statement, values in templates.rows_of(number):
            await writer.write(values, statement)

    started = loop.time()
    await asyncio.gather(*(task(number) for number in range(1_000, 1_000 + count)))
    took = loop.time() - started
    writer.close()
    return took
