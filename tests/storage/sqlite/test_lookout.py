"""A log at rest hears of what others write, with the system's help and without it."""

from __future__ import annotations

import asyncio
import math
import sys
import time

import pytest

from ergon.core.commit import ClaimRequest
from ergon.storage.sqlite import SqliteExecutionLog, lookout
from ergon.storage.sqlite.watch import watch_file
from tests.storage.kit import best_median, new_flow, register

QUIET_SECONDS = 0.3
"""After this long a lookout leaves looking to its watch."""
SOON_SECONDS = 0.02
"""What is promised on an idle machine."""


async def best_delay(file, *, before: int = 0) -> float:
    """How long one log takes to hear of a write to another, after `before` writes that do not count."""
    async with SqliteExecutionLog(file) as writing, SqliteExecutionLog(file) as resting:
        heard = asyncio.Event()
        resting.subscribe(lambda hint: heard.set() if hint.elsewhere else None)

        async def delay() -> float:
            await asyncio.sleep(QUIET_SECONDS)
            heard.clear()
            await writing.create(new_flow())
            written = time.monotonic()
            async with asyncio.timeout(5):
                await heard.wait()
            return time.monotonic() - written

        for _ in range(before):
            await delay()
        return await best_median(delay, enough=SOON_SECONDS)


async def test_a_log_at_rest_hears_of_a_write_within_20_ms(file):
    assert await best_delay(file) < SOON_SECONDS


async def test_where_files_cannot_be_watched_it_looks(file, monkeypatch):
    monkeypatch.setattr(lookout, "watch_file", lambda path: None)

    assert await best_delay(file) < SOON_SECONDS


async def test_a_watch_that_stays_silent_is_soon_not_believed_any_more(file, tmp_path, monkeypatch):
    """As on a network's file system, which tells only of this machine's own writes."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    monkeypatch.setattr(lookout, "watch_file", lambda path: watch_file(elsewhere))

    assert await best_delay(file, before=4) < SOON_SECONDS


@pytest.mark.skipif(sys.platform != "linux", reason="watches are Linux's")
async def test_a_claim_that_finds_nothing_does_not_make_a_log_look_more_often(file):
    """Nobody writes just because somebody looked, and an idle worker claims every second."""
    async with SqliteExecutionLog(file) as log:
        await register(log)
        looks: list[str] = []
        group = log._session._group
        assert group is not None
        group.connection.set_trace_callback(lambda sql: looks.append(sql) if "data_version" in sql else None)
        await asyncio.sleep(QUIET_SECONDS)
        while looks:  # nobody has written for a while, but it has yet to begin to watch
            looks.clear()
            await asyncio.sleep(QUIET_SECONDS / 3)
        began = time.monotonic()

        for _ in range(3):
            assert await log.claim(ClaimRequest(worker="w1", names=("order",))) == []
            await asyncio.sleep(QUIET_SECONDS / 3)

        by_the_clock = math.ceil((time.monotonic() - began) / lookout._LOOK_WATCHED_SECONDS)
        assert len(looks) <= 3 + by_the_clock, "one after each claim, and twice a second"


@pytest.mark.skipif(sys.platform != "linux", reason="watches are Linux's")
def test_a_watch_tells_writing_from_waking_and_ends_when_closed(tmp_path):
    path = tmp_path / "file"
    path.touch()
    watch = watch_file(path)
    assert watch is not None

    assert not watch.wait(0)
    path.write_text("something")
    assert watch.wait(5)
    assert not watch.wait(0), "what was told is not told again"
    path.write_text("more")
    assert watch.forget()
    assert not watch.wait(0)
    watch.wake()
    assert not watch.wait(5)
    watch.close()
    watch.wake()  # by a thread that has not heard yet


def test_a_file_that_is_not_there_cannot_be_watched(tmp_path):
    assert watch_file(tmp_path / "nothing") is None


async def test_a_log_in_memory_never_looks_for_others(monkeypatch):
    monkeypatch.setattr(lookout, "_LOOK_BUSY_SECONDS", 0.0)
    async with SqliteExecutionLog(":memory:") as log:
        for number in range(3):
            await asyncio.wait_for(log.create(new_flow(f"f{number}")), 5)
