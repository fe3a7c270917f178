"""Ctrl-C or a time limit may strike while a log is opened or closed: it opens and closes again, and nothing leaks."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ergon.storage.sqlite import InMemoryExecutionLog, SqliteExecutionLog
from tests.storage.kit import new_flow, until


def threads_of(log):
    name = f"ergon-writer-{log.path}"
    return [thread for thread in threading.enumerate() if thread.name == name]


async def cancel_after(turns, coroutine):
    """Run it, and cancel it after so many turns of the loop."""
    task = asyncio.create_task(coroutine)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
@pytest.mark.parametrize("kind", ["file", "memory"])
async def test_a_log_whose_closing_was_cancelled_can_be_closed_and_connected_again(file, kind, turns):
    log = SqliteExecutionLog(file) if kind == "file" else InMemoryExecutionLog()
    await log.connect()
    await log.create(new_flow("f1"))

    await cancel_after(turns, log.close())

    async with asyncio.timeout(10):
        await log.close()
        async with log:
            found = await log.find("f1")
    assert (found is not None) == (kind == "file")
    await until(lambda: not threads_of(log))


async def test_two_may_close_a_log_at_once_and_one_of_them_be_cancelled(file):
    log = await SqliteExecutionLog(file).connect()
    first, second = asyncio.create_task(log.close()), asyncio.create_task(log.close())
    await asyncio.sleep(0)
    first.cancel()

    async with asyncio.timeout(10):
        await second
    await until(lambda: not threads_of(log))


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_connecting_that_was_cancelled_leaves_no_thread(file, turns):
    log = SqliteExecutionLog(file)

    await cancel_after(turns, log.connect())

    await until(lambda: not threads_of(log))
    async with asyncio.timeout(10):
        async with log:
            await log.create(new_flow("f1"))
    await until(lambda: not threads_of(log))


def test_an_event_loop_that_ends_while_a_log_is_closed_leaves_no_thread(file):
    async def close_and_leave():
        log = await SqliteExecutionLog(file).connect()
        await log.create(new_flow("f1"))
        await cancel_after(1, log.close())
        return log

    log = asyncio.run(close_and_leave())

    for thread in threads_of(log):
        thread.join(10)
    assert threads_of(log) == []
