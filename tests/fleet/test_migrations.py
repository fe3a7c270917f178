"""A new version brings a new schema while workers of the old one are at work.

There is one schema so far. The next is made up here: a copy of the code with one more migration is the new version.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis

from ergon import ExecutionLog, FlowHandle, LogTooNew, Scheduler, open_log
from tests.fleet.conftest import ROOT, Place
from tests.fleet.programs import asking, long, order
from tests.storage.kit import until

pytestmark = pytest.mark.timeout(300)  # processes are slow to start where many tests run at once

PARTS = ("a", "b", "child", "last")
COMPATIBLE = """
ALTER TABLE flows ADD COLUMN made_up TEXT;
CREATE INDEX flows_made_up ON flows (made_up) WHERE made_up IS NOT NULL;
"""
INCOMPATIBLE = COMPATIBLE + "UPDATE meta SET value = '2' WHERE key = 'compatible_from';"

on_sql = pytest.mark.parametrize("place", ["sqlite", "postgres"], indirect=True)


def new_version(folder: Path, migration: str) -> Path:
    """The code under test with another migration; returns what to put on the path."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src" / "ergon", folder / "ergon", ignore=ignored)
    for store in ("sqlite", "postgres"):
        (folder / "ergon" / "storage" / store / "schema" / "0002_made_up.sql").write_text(migration)
    return folder


async def columns(place: Place) -> list[str]:
    """Of table flows."""
    if place.store == "sqlite":
        with contextlib.closing(sqlite3.connect(place.url())) as connection:
            return [row[1] for row in connection.execute("PRAGMA table_info(flows)")]
    connection = await asyncpg.connect(place.url().partition("?")[0])
    try:
        look = "SELECT column_name FROM information_schema.columns WHERE table_name = 'flows' AND table_schema = $1"
        return [row[0] for row in await connection.fetch(look, f"ergon__{place.namespace}")]
    finally:
        await connection.close()


@asynccontextmanager
async def under_load(log: ExecutionLog, place: Place) -> AsyncIterator[list[FlowHandle[list[str]]]]:
    """Flows are scheduled by this process, which runs the old code, until the block ends."""
    handles: list[FlowHandle[list[str]]] = []

    async def keep_scheduling() -> None:
        while True:
            number = len(handles)
            call = order.bind(str(place.ledger), str(number))
            handles.append(await Scheduler(log).schedule(call, id=f"order-{number}"))
            await asyncio.sleep(0.1)

    scheduling = asyncio.create_task(keep_scheduling())
    try:
        yield handles
    finally:
        scheduling.cancel()
        await asyncio.gather(scheduling, return_exceptions=True)


@on_sql
async def test_old_and_new_code_share_a_log_on_the_new_schema_during_a_rolling_deploy(
    log, place: Place, tmp_path: Path
) -> None:
    code = new_version(tmp_path / "new", COMPATIBLE)
    async with AsyncExitStack() as stack:
        olds = await asyncio.gather(
            *(stack.enter_async_context(place.worker(f"old-{n}", lease_seconds=20.0)) for n in range(2))
        )
        async with under_load(log, place) as handles:
            await until(lambda: place.records("END"))
            assert "made_up" not in await columns(place)
            new = await stack.enter_async_context(place.worker("new", code=code, lease_seconds=20.0))
            assert "made_up" in await columns(place)
            migrated = len(handles)
            since = len(place.records())
            await until(lambda: all(_has_worked(place, old.pid, since) for old in olds))
            await until(lambda: _has_worked(place, new.pid, 0))
            late = await stack.enter_async_context(place.worker("late", lease_seconds=20.0))
            await until(lambda: _has_worked(place, late.pid, 0))
            for old in (*olds, late):
                old.terminate()
                assert await old.wait() == 0
            count = len(handles)
            await until(lambda: len(handles) > count + 3)
        async with asyncio.timeout(120):
            results = await asyncio.gather(*(handle.result() for handle in handles))

    assert 0 < migrated < len(handles)
    assert results == [[f"{n}/{part}" for part in PARTS] for n in range(len(handles))]
    wanted = dict.fromkeys((f"{n}/{part}" for n in range(len(handles)) for part in PARTS), 1)
    assert Counter(record["label"] for record in place.records("BEGIN")) == wanted
    assert place.said.read_text() == "", "nobody had anything to complain of"


@on_sql
async def test_a_schema_that_old_code_cannot_use_stops_it_in_one_line_while_it_runs_and_when_it_opens(
    log, place: Place, tmp_path: Path
) -> None:
    code = new_version(tmp_path / "new", INCOMPATIBLE)
    scheduler = Scheduler(log)
    waiting = await scheduler.schedule(asking.bind(), id="asking")
    async with place.worker("old") as old:
        handle = await scheduler.schedule(long.bind(str(place.ledger), 60), id="long")
        await until(lambda: len(place.records("END")) >= 5)

        async with place.worker("new", code=code) as new:
            await _refused(scheduler.schedule(asking.bind(), id="another"))
            await _refused(waiting.signal("answer", "no"))
            await _refused(waiting.cancel())
            await _refused(open_log(place.url(), require="D1").connect())
            await until(lambda: "does nothing more" in place.said.read_text())
            assert await handle.result(30) == [str(n) for n in range(60)]
            assert await log.inbox("asking") == []
            assert await log.find("another") is None
        old.terminate()
        assert await old.wait() == 0

    (line,) = [line for line in place.said.read_text().splitlines() if "does nothing more" in line]
    assert "worker old does nothing more: log " in line
    assert line.endswith("which this Ergon cannot use; upgrade this process")
    begun = place.records("BEGIN")
    assert [r.pid for r in begun] == sorted((r.pid for r in begun), key=[old.pid, new.pid].index)
    again = [label for label, times in Counter(r["label"] for r in begun).items() if times > 1]
    assert len(again) <= 1, "only the step that was open may run again"
    assert [event.seq for event in await log.history("long")] == list(range(1, 61))


@pytest.mark.parametrize("place", ["redis"], indirect=True)
async def test_on_redis_old_code_goes_on_under_a_version_that_allows_it_and_stops_under_one_that_does_not(
    log, place: Place
) -> None:
    """Keys have no shape of their own: what a migration changes for all is the log's `meta`."""
    meta = f"{{ergon/{place.namespace}:0}}:meta"
    with redis.Redis(port=place.port, decode_responses=True) as client:
        async with place.worker("old", lease_seconds=2.0) as old, under_load(log, place) as handles:
            await until(lambda: place.records("END"))
            client.hset(meta, mapping={"schema": 2, "compatible_from": 1})
            count, since = len(handles), len(place.records())
            await until(lambda: len(handles) > count + 3)
            await until(lambda: _has_worked(place, old.pid, since))
            async with open_log(place.url(), require="D1"):
                pass

            newer: dict[Any, Any] = {"compatible_from": 2, "generation": f"{log.generation}+2"}
            client.hset(meta, mapping=newer)
            await _refused(Scheduler(log).schedule(asking.bind(), id="another"))
            await _refused(handles[0].signal("answer", "no"))
            await _refused(open_log(place.url(), require="D1").connect())
            await until(lambda: "does nothing more" in place.said.read_text())
            began = len(place.records("BEGIN"))
            old.terminate()
            assert await old.wait() == 0
        assert len(place.records("BEGIN")) == began
        assert client.hget(meta, "generation") == newer["generation"]
    (line,) = [line for line in place.said.read_text().splitlines() if "does nothing more" in line]
    assert line.endswith("which this Ergon cannot use; upgrade this process")


def _has_worked(place: Place, pid: int, since: int) -> bool:
    return any(record.pid == pid for record in place.records()[since:])


async def _refused(act: Any) -> None:
    with pytest.raises(LogTooNew, match="upgrade this process") as refused:
        await act
    assert "\n" not in str(refused.value)
