"""A plain step that the body of another calls is part of that one, and runs where it would run by itself."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable
from typing import Any

import pytest

from ergon import ExecutionLog, flow, idempotency_key, step
from tests.stories.helpers import start, until, worker

SPAWN_SECONDS = 120
"""A process imports all of this file before its first step."""


async def _of(answer: Awaitable[Any]) -> Any:
    return await answer


async def test_no_more_of_them_run_at_once_than_the_worker_has_threads(log: ExecutionLog) -> None:
    lock, at_once, most = threading.Lock(), 0, 0

    @step
    def inner(number: int) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.05)
        with lock:
            at_once -= 1
        return threading.current_thread().name

    @step
    async def outer() -> list[str]:
        return list(await asyncio.gather(*(inner(number) for number in range(6))))

    @flow
    async def fan_out() -> list[str]:
        return await outer()

    async with worker(log, fan_out, step_threads=2):
        names = await (await start(log, fan_out.bind())).result(10)

    assert most == 2
    assert all(name.startswith("ergon-step") for name in names)


async def test_it_is_named_when_a_shutdown_leaves_it_behind(
    log: ExecutionLog, caplog: pytest.LogCaptureFixture
) -> None:
    began, release = threading.Event(), threading.Event()

    @step
    def hangs() -> None:
        began.set()
        release.wait(10)

    @step
    async def outer() -> None:
        await hangs()

    @flow
    async def process() -> None:
        await outer()

    with caplog.at_level(logging.WARNING, "ergon"):
        async with worker(log, process, drain_seconds=0.05):
            await start(log, process.bind(), "f")
            await until(began.is_set)
    release.set()

    assert "1 plain functions still run and are abandoned" in caplog.text
    assert "step `outer` of flow f" in caplog.text


async def test_a_step_with_a_loop_of_its_own_waits_for_no_further_thread_of_the_pool(
    log: ExecutionLog,
) -> None:
    """It keeps its own thread meanwhile: were all of them kept so, none would ever be free."""

    @step
    def inner() -> str:
        return idempotency_key()

    @step
    def outer() -> str:
        return str(asyncio.run(_of(inner())))

    @flow
    async def process() -> str:
        return await outer()

    async with worker(log, process, step_threads=1):
        assert await (await start(log, process.bind(), "f")).result(10) == "f/0:1"


@step(process=True)
def where() -> tuple[int, str]:
    return os.getpid(), idempotency_key()


@step
async def asks_where() -> tuple[int, str]:
    return await where()


@step
def asks_where_from_a_thread() -> tuple[int, str]:
    pid, key = asyncio.run(_of(where()))
    return pid, key


@step(process=True)
def asks_where_from_elsewhere() -> tuple[int, int, str]:
    pid, key = asyncio.run(_of(where()))
    return os.getpid(), pid, key


@flow
async def asks_everywhere() -> tuple[tuple[int, str], tuple[int, str], tuple[int, int, str]]:
    return await asks_where(), await asks_where_from_a_thread(), await asks_where_from_elsewhere()


async def test_one_for_another_process_runs_there_and_knows_whose_part_it_is(log: ExecutionLog) -> None:
    async with worker(log, asks_everywhere):
        found = await (await start(log, asks_everywhere.bind(), "f")).result(SPAWN_SECONDS)

    (one, of_one), (two, of_two), (three, inside_three, of_three) = found
    assert os.getpid() not in (one, two, three)
    assert inside_three == three, "it is in another process already"
    assert [of_one, of_two, of_three] == ["f/0:1", "f/0:2", "f/0:3"]
