"""A flow or step that computes or blocks without awaiting is reported, with its stack, while it does so."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from types import FrameType

import pytest

from ergon import Completed, ExecutionLog, Executor, flow, step
from ergon.executor import watchdog
from ergon.executor.watchdog import LOOK_SECONDS, SLOW_TURN_SECONDS, Turn, TurnClock
from tests.stories.helpers import start, until, worker


class Told(logging.Handler):
    """What the logger was told, heard on whatever thread says it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self.heard = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
        if "without awaiting" in self.said[-1]:
            self.heard.set()


@pytest.fixture
def told() -> Iterator[Told]:
    handler = Told()
    logging.getLogger("ergon.executor").addHandler(handler)
    yield handler
    logging.getLogger("ergon.executor").removeHandler(handler)


def block_until_reported(told: Told) -> None:
    assert told.heard.wait(20), "nobody noticed"


@pytest.mark.parametrize("runs_on", ["worker", "executor"])
@pytest.mark.parametrize("when", ["at its start", "after a step"])
async def test_a_flow_that_blocks_is_reported_with_its_id_and_stack(
    log: ExecutionLog, told: Told, runs_on: str, when: str
) -> None:
    @step
    async def note() -> None: ...

    @flow
    async def blocking_job() -> str:
        if when == "after a step":
            await note()
        block_until_reported(told)
        return "done"

    if runs_on == "worker":
        async with worker(log, blocking_job):
            assert await (await start(log, blocking_job.bind(), "f-7")).result(10) == "done"
    else:
        assert await Executor(blocking_job.bind(), log, "f-7").run() == Completed("done")

    (said,) = [said for said in told.said if "without awaiting" in said]
    assert "flow f-7 has kept its event loop" in said
    assert "into a step" in said
    assert "in blocking_job\n    block_until_reported(told)" in said
    assert "executor/run.py" not in said, "where the flow's own code begins, the stack begins"


async def test_a_step_that_takes_long_on_its_thread_is_not_reported(log: ExecutionLog, told: Told) -> None:
    @step
    def slow() -> None:
        time.sleep(SLOW_TURN_SECONDS + 4 * LOOK_SECONDS)

    @flow
    async def job() -> None:
        await slow()

    async with worker(log, job):
        await (await start(log, job.bind())).result(10)

    assert not told.heard.is_set()


@pytest.mark.parametrize(
    "where", ["at its start", "after an await", "in a task of its own", "with a timeout"]
)
async def test_a_step_that_blocks_the_event_loop_is_reported_with_its_name_and_stack(
    log: ExecutionLog, told: Told, where: str
) -> None:
    async def work() -> None:
        if where != "at its start":
            await asyncio.sleep(0.01)
        block_until_reported(told)

    @step(timeout=30.0 if where == "with a timeout" else None)
    async def charge() -> None:
        if where == "in a task of its own":
            await asyncio.create_task(work())
        else:
            await work()

    @flow
    async def order() -> None:
        await charge()

    async with worker(log, order):
        await (await start(log, order.bind(), "f-7")).result(10)

    (said,) = [said for said in told.said if "without awaiting" in said]
    assert "step `charge` of flow f-7 has kept its event loop" in said
    assert "plain `def` step" in said
    assert "process=True" in said
    assert "asyncio.to_thread" in said
    assert "in work\n    block_until_reported(told)" in said
    assert "executor/runner.py" not in said, "where the step's own code begins, the stack begins"
    assert "base_events.py" not in said


async def test_a_step_that_computes_for_long_and_awaits_in_between_is_not_reported(
    log: ExecutionLog, told: Told
) -> None:
    @step
    async def busy() -> None:
        until = time.monotonic() + SLOW_TURN_SECONDS + 4 * LOOK_SECONDS
        while time.monotonic() < until:
            time.sleep(0.05)
            await asyncio.sleep(0)

    @flow
    async def job() -> None:
        await busy()

    async with worker(log, job):
        await (await start(log, job.bind())).result(10)

    assert not told.heard.is_set()


def test_a_step_is_reported_again_when_it_has_taken_as_long_as_the_lease() -> None:
    clock, now, reports = TurnClock(), 0.0, []
    for _ in range(150):
        now += LOOK_SECONDS
        if (seconds := clock.see(Turn("f", 1, 0, "charge"), now, 10.0)) is not None:
            reports.append(seconds)

    assert reports == [pytest.approx(0.5, abs=0.11), pytest.approx(10.0, abs=0.11)]


def test_only_a_turn_that_stays_the_same_is_slow() -> None:
    clock, now = TurnClock(), 0.0
    for number in range(100):
        now += LOOK_SECONDS
        assert clock.see(Turn("f", 1, number), now) is None
        assert clock.see(None, now) is None

    reports = []
    for _ in range(60):
        now += LOOK_SECONDS
        if (seconds := clock.see(Turn("f", 1, 100), now)) is not None:
            reports.append(seconds)
    assert reports == [pytest.approx(0.5, abs=0.11), pytest.approx(2.0, abs=0.5)]


def test_time_in_which_the_whole_process_stood_still_does_not_count() -> None:
    clock = TurnClock()
    assert clock.see(Turn("f", 1, 1), 0.0) is None
    assert clock.see(Turn("f", 1, 1), 3_600.0) is None


async def test_one_thread_looks_and_ends_when_nobody_needs_it(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "_watchdog", watchdog.Watchdog())
    monkeypatch.setattr(watchdog, "LINGER_SECONDS", 0.0)

    @flow
    async def job() -> None: ...

    async with worker(log, job), worker(log, job):
        thread = watchdog._watchdog._thread
        assert thread is not None
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()
    stop = watchdog.watch()
    assert watchdog._watchdog._thread not in (None, thread)
    stop()
    stop()


async def test_where_no_thread_can_be_started_it_is_said_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looking = watchdog.Watchdog()

    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        looking.watch()
        await asyncio.sleep(0)
    assert "not reported: can't start new thread" in caplog.text

    started: list[threading.Thread] = []
    begin = threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        started.append(thread)
        begin(thread)

    monkeypatch.setattr(threading.Thread, "start", noting)
    for stop in (looking.watch(), looking.watch()):  # the second before the loop comes round
        stop()
    await asyncio.sleep(0)
    assert started == [looking._thread]
    assert started[0].is_alive()


async def test_another_loop_that_ends_before_it_comes_round_keeps_no_loop_from_being_watched() -> None:
    looking = watchdog.Watchdog()
    stop = looking.watch()

    def begin_and_end() -> None:
        other = asyncio.new_event_loop()
        other.call_soon(looking.watch)
        other.call_soon(other.stop)
        other.run_forever()
        other.close()

    thread = threading.Thread(target=begin_and_end)
    thread.start()
    thread.join()
    assert looking._thread is not None
    assert not looking._thread.is_alive()
    await asyncio.sleep(0)
    assert looking._thread.is_alive()
    stop()


class Value:
    """Something large that a frame holds."""


def test_the_collector_does_not_run_while_frames_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.12 that could stop the whole process for ever: see `watchdog._current_frames`."""
    collecting: list[bool] = []
    take = sys._current_frames

    def taken() -> dict[int, FrameType]:
        collecting.append(gc.isenabled())
        return take()

    monkeypatch.setattr(sys, "_current_frames", taken)

    assert threading.get_ident() in watchdog._current_frames()
    assert gc.isenabled()
    gc.disable()
    try:
        assert threading.get_ident() in watchdog._current_frames()
        assert not gc.isenabled(), "whoever switched it off keeps it off"
    finally:
        gc.enable()
    assert collecting == [sys.version_info >= (3, 12), False]


async def test_a_look_keeps_nothing_alive_of_what_it_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a frame held when it was looked at goes with the frame, though the collector never comes."""
    looked = threading.Event()

    def look(frame: FrameType) -> None:
        looked.set()

    monkeypatch.setattr(watchdog, "_turn_in", look)
    stop = watchdog.Watchdog().watch()
    await asyncio.sleep(0)  # the thread starts when the loop comes round

    def hold() -> weakref.ref[Value]:
        held = Value()
        looked.clear()
        assert looked.wait(10)
        return weakref.ref(held)

    gc.disable()
    try:
        value = hold()
        await until(lambda: value() is None, within=5)
    finally:
        gc.enable()
        stop()
