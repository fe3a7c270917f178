"""Results of steps that run one after the other in one go share a commit, and none waits longer than that is worth."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from ergon import SqliteExecutionLog, Worker, flow, step
from ergon.core.commit import Commit
from ergon.core.history import EventKind
from tests.stories.helpers import start

PATIENCE_SECONDS = 20.0


class Counted(SqliteExecutionLog):
    """Notes how many results each commit holds."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.results: list[int] = []

    def submit(self, commit: Commit, done) -> None:
        results = sum(event.kind == EventKind.STEP_COMPLETED for event in commit.events)
        if results:
            self.results.append(results)
        super().submit(commit, done)


@pytest.fixture
async def log(tmp_path: Path):
    async with Counted(tmp_path / "log.db") as opened:
        yield opened


def recorded(path: str) -> int:
    """How many results are durable."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader:
        sql = "SELECT count(*) FROM events WHERE kind = 'step_completed'"
        return int(reader.execute(sql).fetchone()[0])


@step
async def double(number: int) -> int:
    return 2 * number


@step
async def await_records(path: str, wanted: int) -> int:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while (found := recorded(path)) < wanted:
        assert time.monotonic() < give_up_at, f"{found} results are durable, not {wanted}"
        await asyncio.sleep(0.005)
    return 0


@step
async def block(path: str, wanted: int) -> int:
    """Keep the event loop until so many results are durable."""
    time.sleep(0.01)
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while (found := recorded(path)) < wanted:
        assert time.monotonic() < give_up_at, f"{found} results are durable, not {wanted}"
        time.sleep(0.005)
    return 0


@flow
async def doubles(count: int) -> list[int]:
    return await asyncio.gather(*(double(number) for number in range(count)))


@flow
async def one_waits(path: str) -> tuple[int, ...]:
    return await asyncio.gather(double(1), double(2), await_records(path, 2), double(3))


@flow
async def all_take_long(path: str) -> tuple[int, ...]:
    """The third does not return before the results of the first two are durable, and keeps the event loop."""
    return await asyncio.gather(block(path, 0), block(path, 0), block(path, 2))


async def test_short_steps_of_a_gather_share_a_commit(log):
    async with Worker(log, flows=[doubles]):
        handle = await start(log, doubles.bind(40))
        assert await handle.result() == [2 * number for number in range(40)]

    assert sum(log.results) == 40
    assert log.results[0] > 1, "the first one went ahead alone"


async def test_a_step_alone_is_recorded_at_once(log):
    async with Worker(log, flows=[doubles]):
        assert await (await start(log, doubles.bind(1))).result() == [0]

    assert log.results == [1]


async def test_a_result_does_not_wait_for_a_step_that_waits(log):
    async with Worker(log, flows=[one_waits]):
        handle = await start(log, one_waits.bind(str(log.path)))
        assert await handle.result() == (2, 4, 0, 6)


async def test_a_result_does_not_wait_for_steps_that_keep_the_event_loop_long(log):
    """Else a crash of a long gather would run all of it again."""
    async with Worker(log, flows=[all_take_long]):
        handle = await start(log, all_take_long.bind(str(log.path)))
        assert await handle.result() == (0, 0, 0)
