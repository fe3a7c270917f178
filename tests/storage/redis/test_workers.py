"""Workers on Redis: what they finish whoever dies, a worker or the server."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ergon import Scheduler, Worker, WorkerOptions, flow, invoke, step, wait_signal
from ergon.core.release import VERSION
from ergon.storage.redis import RedisExecutionLog
from tests.servers.redis import cluster, new_prefix, server_url
from tests.storage.kit import until

QUICK = WorkerOptions(poll_seconds=0.2, reap_seconds=0.2, lease_seconds=1.0, evict_after_seconds=0.1)


@step
async def mark(file: str, text: str) -> str:
    with Path(file).open("a", encoding="utf-8") as marks:
        marks.write(text + "\n")
    return text


@flow
async def leaf(file: str, number: int) -> int:
    await mark(file, f"leaf {number}")
    return number


@flow
async def order(file: str, number: int) -> list[object]:
    first, second = await asyncio.gather(mark(file, f"{number} a"), mark(file, f"{number} b"))
    await asyncio.sleep(0.3)
    child = await invoke(leaf.bind(file, number)).result()
    word = await wait_signal("word", str)
    return [first, second, child, word]


FLOWS: list[Any] = [order, leaf]
PROGRAM = """
import asyncio, sys
from ergon import Worker
from ergon.core.release import VERSION
from ergon.storage.redis import RedisExecutionLog
from tests.storage.redis import test_workers as these

async def main():
    async with RedisExecutionLog(sys.argv[1], prefix=sys.argv[2], ephemeral=True) as log:
        async with Worker(log, "other", flows=these.FLOWS, options=these.QUICK):
            print("ready", flush=True)
            await asyncio.sleep(3600)

asyncio.run(main())
"""


@asynccontextmanager
async def other_worker(url: str, prefix: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, url, prefix, stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        await process.communicate()


@pytest.fixture(params=["server", "cluster"])
def place(request: pytest.FixtureRequest) -> str:
    return server_url() if request.param == "server" else cluster().url


def marks(file: Path) -> Counter[str]:
    return Counter(file.read_text().splitlines()) if file.exists() else Counter()


def has_marks(file: Path, count: int) -> bool:
    return marks(file).total() >= count


async def test_a_worker_that_is_killed_loses_nothing_and_another_one_finishes(place, tmp_path):
    file, prefix, count = tmp_path / "marks", new_prefix(), 20
    async with RedisExecutionLog(place, prefix=prefix, ephemeral=True) as log:
        scheduler = Scheduler(log)
        async with other_worker(place, prefix) as process:
            handles = [
                await scheduler.schedule(order.bind(str(file), n), id=f"order-{n}") for n in range(count)
            ]
            await until(lambda: marks(file).total() >= count)
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
        async with Worker(log, flows=FLOWS, options=QUICK):
            for n, handle in enumerate(handles):
                await handle.signal("word", f"w{n}")
            results = await asyncio.gather(*(handle.result() for handle in handles))

    assert results == [[f"{n} a", f"{n} b", n, f"w{n}"] for n in range(count)]
    found = marks(file)
    assert set(found) == {text for n in range(count) for text in (f"{n} a", f"{n} b", f"leaf {n}")}


async def test_flows_go_on_over_crashes_of_the_server_and_no_committed_step_runs_again(own_server, tmp_path):
    file, count = tmp_path / "marks", 30
    async with RedisExecutionLog(own_server.url, require="D3") as log:
        scheduler = Scheduler(log)
        async with Worker(log, flows=FLOWS, options=QUICK):
            handles = [
                await scheduler.schedule(order.bind(str(file), n), id=f"order-{n}") for n in range(count)
            ]
            for done in (5, 30, 60):
                await until(partial(has_marks, file, done))
                own_server.restart()
            for n, handle in enumerate(handles):
                await handle.signal("word", f"w{n}")
            results = await asyncio.gather(*(handle.result() for handle in handles))

    assert results == [[f"{n} a", f"{n} b", n, f"w{n}"] for n in range(count)]
    assert set(marks(file).values()) == {1}, "the process lived, so each body ran once"


async def test_two_workers_share_flows_and_hear_of_signals_sent_elsewhere_at_once(place, tmp_path):
    file, prefix, count = tmp_path / "marks", new_prefix(), 20
    slow = WorkerOptions(poll_seconds=30.0, evict_after_seconds=60.0)
    async with (
        RedisExecutionLog(place, prefix=prefix, ephemeral=True) as log,
        RedisExecutionLog(place, prefix=prefix, ephemeral=True) as elsewhere,
        Worker(log, "one", flows=FLOWS, options=slow),
        Worker(log, "two", flows=FLOWS, options=slow),
    ):
        scheduler = Scheduler(elsewhere)
        handles = [await scheduler.schedule(order.bind(str(file), n), id=f"order-{n}") for n in range(count)]
        for n, handle in enumerate(handles):
            await handle.signal("word", f"w{n}")
        async with asyncio.timeout(20):  # polls come every 30 s: only hints are so quick
            results = await asyncio.gather(*(handle.result() for handle in handles))

    assert results == [[f"{n} a", f"{n} b", n, f"w{n}"] for n in range(count)]
    assert set(marks(file).values()) == {1}


async def test_a_server_can_tell_which_of_its_clients_are_ergon_and_which_version(own_server):
    async with RedisExecutionLog(own_server.url):
        with own_server.client() as client:
            names = {one["lib-name"] for one in client.client_list() if one["name"] == "ergon"}

    assert names == {f"redis-py(ergon_v{VERSION})"}
