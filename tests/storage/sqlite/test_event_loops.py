"""A log belongs to the event loop that connected it; another one gets a sentence, not an error of asyncio's."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from ergon.core.commit import ClaimRequest, Commit, FlowFilter, Lease
from ergon.core.status import TaskStatus
from ergon.errors import LogClosed, StoreError
from ergon.storage.sqlite import InMemoryExecutionLog, SqliteExecutionLog
from ergon.testing.conformance.life import open_files
from tests.storage.kit import event, new_flow, signal, worker_record

USES = {
    "find": lambda log: log.find("f1"),
    "list": lambda log: log.list(FlowFilter()),
    "history": lambda log: log.history("f1"),
    "workers": lambda log: log.workers(),
    "create": lambda log: log.create(new_flow("f2")),
    "send": lambda log: log.send(signal("f1")),
    "move": lambda log: log.move("f1", TaskStatus.PAUSED),
    "register": lambda log: log.register(worker_record(), lease_seconds=1.0),
    "claim": lambda log: log.claim(ClaimRequest(worker="w1", names=("order",))),
    "durability": lambda log: log.durability(),
}


async def connected(path):
    log = await SqliteExecutionLog(path).connect()
    await log.create(new_flow("f1"))
    return log


@pytest.mark.parametrize("use", USES)
def test_a_log_of_an_earlier_asyncio_run_says_that_it_has_to_be_connected_again(file, use):
    log = asyncio.run(connected(file))

    async def later():
        with pytest.raises(LogClosed, match=r"an event loop that has ended.*connect it again in this one"):
            await USES[use](log)
        async with log:
            assert await log.find("f1") is not None

    asyncio.run(later())


@pytest.mark.parametrize("use", [*USES, "connect", "close"])
def test_a_log_that_is_open_on_a_living_loop_says_so_on_another(file, use):
    uses = {**USES, "connect": lambda log: log.connect(), "close": lambda log: log.close()}
    with LoopOfItsOwn() as other:
        log = other.run(connected(file))

        async def here():
            with pytest.raises(
                StoreError, match="is open on another event loop; use it there, or open a second"
            ):
                await uses[use](log)

        asyncio.run(here())
        assert other.run(log.find("f1")) is not None
        other.run(log.close())


@pytest.mark.parametrize("memory", [False, True], ids=["file", "memory"])
def test_a_log_can_be_closed_where_its_loop_is_gone(file, memory):
    log = InMemoryExecutionLog() if memory else SqliteExecutionLog(file)
    asyncio.run(log.connect())
    threads = [used.thread for used in (log._session._writer, log._session._reader) if used is not None]

    async def later():
        await log.close()
        await log.close()
        with pytest.raises(LogClosed, match="is not open"):
            await log.find("f1")

    asyncio.run(later())

    assert not any(thread.is_alive() for thread in threads if thread is not None)


def test_what_was_submitted_before_the_loop_ended_is_written_when_the_log_is_closed_elsewhere(file):
    async def earlier():
        log = await SqliteExecutionLog(file).connect()
        asyncio.ensure_future(log.create(new_flow("f1")))  # noqa: RUF006 - left behind, that is the point
        await asyncio.sleep(0)  # it has been submitted; nobody waits for the answer
        return log

    async def count():
        async with SqliteExecutionLog(file) as log:
            return len((await log.list(FlowFilter()))[0])

    log = asyncio.run(earlier())
    asyncio.run(log.close())

    assert asyncio.run(count()) == 1


@pytest.mark.parametrize("memory", [False, True], ids=["file", "memory"])
def test_logs_that_nobody_closed_leave_no_thread_and_no_file_open_once_their_loop_is_closed(file, memory):
    async def use_and_leave():
        log = await (InMemoryExecutionLog() if memory else SqliteExecutionLog(file)).connect()
        await log.create(new_flow("f1"))
        assert await log.find("f1") is not None
        await asyncio.sleep(0.1)  # until the writer rests
        return log

    async def close(log):
        await log.close()

    asyncio.run(close(asyncio.run(use_and_leave())))  # what a process opens once
    before = open_files(), threading.active_count()
    left = [asyncio.run(use_and_leave()) for _ in range(3)]

    give_up_at = time.monotonic() + 10
    while open_files() > before[0] or threading.active_count() > before[1]:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)

    for log in left:
        asyncio.run(close(log))


def test_what_was_submitted_before_the_loop_ended_is_written_though_nobody_closes_the_log(file):
    async def leave():
        log = await SqliteExecutionLog(file).connect()
        asyncio.ensure_future(log.create(new_flow("f1")))  # noqa: RUF006 - left behind, that is the point
        await asyncio.sleep(0)
        return log

    async def find():
        async with SqliteExecutionLog(file) as log:
            return await log.find("f1")

    log = asyncio.run(leave())
    writer_of(log).thread.join(10)

    assert not writer_of(log).thread.is_alive()
    assert asyncio.run(find()) is not None
    with pytest.raises(LogClosed):
        log.submit(Commit("f1", Lease("w1", 1), (event(1),)), lambda _: None)


def test_a_log_connected_again_is_read_though_threads_of_its_earlier_loop_end_only_then(file):
    log = asyncio.run(connected(file))
    earlier, may_end = writer_of(log), threading.Event()
    close = earlier._lookout.close

    def close_later():
        may_end.wait(10)
        close()

    earlier._lookout.close = close_later

    async def later():
        async with log:
            assert await log.find("f1") is not None
            may_end.set()
            await asyncio.to_thread(earlier.thread.join)
            assert await asyncio.wait_for(log.find("f1"), 10) is not None

    asyncio.run(later())


def writer_of(log):
    writer = log._session._writer
    assert writer is not None
    return writer


class LoopOfItsOwn:
    """An event loop that runs on another thread."""

    def __enter__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        return self

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
