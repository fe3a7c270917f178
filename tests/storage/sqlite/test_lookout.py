"""A log at rest hears of what others write, with the system's help and without it."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import pytest

from ergon.storage.sqlite import SqliteExecutionLog, lookout
from ergon.storage.sqlite.watch import watch_file
from tests.storage.kit import new_flow

QUIET_SECONDS = 0.3
"""After this long a lookout leaves looking to its watch."""


async def delays_of(file, count: int, pause_seconds: float = QUIET_SECONDS) -> list[float]:
    """How long one log takes to hear of a write to another."""
    delays = []
    async with SqliteExecutionLog(file) as writing, SqliteExecutionLog(file) as resting:
        heard = asyncio.Event()
        resting.subscribe(lambda hint: heard.set() if hint.elsewhere else None)
        for _ in range(count):
            await asyncio.sleep(pause_seconds)
            heard.clear()
            await writing.create(new_flow())
            written = time.monotonic()
            async with asyncio.timeout(5):
                await heard.wait()
            delays.append(time.monotonic() - written)
    return delays


async def test_a_log_at_rest_hears_of_a_write_within_the_time_of_a_look(file):
    assert statistics.median(await delays_of(file, 5)) < 0.1


async def test_where_files_cannot_be_watched_it_looks(file, monkeypatch):
    monkeypatch.setattr(lookout, "watch_file", lambda path: None)

    assert statistics.median(await delays_of(file, 5)) < 0.1


async def test_a_watch_that_stays_silent_is_soon_not_believed_any_more(file, tmp_path, monkeypatch):
    """As on a network's file system, which tells only of this machine's own writes."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    monkeypatch.setattr(lookout, "watch_file", lambda path: watch_file(elsewhere))

    delays = await delays_of(file, 8)

    assert statistics.median(delays[4:]) < 0.1


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
