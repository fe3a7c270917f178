"""Whoever waits for a result gets it, or an error: also when hints are lost, and when the log has a defect."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ergon import ExecutionLog, FlowHandle, Scheduler, SqliteExecutionLog, flow, step, wait_signal
from ergon.core.commit import FlowRecord, Hint
from ergon.errors import FlowCancelled, FlowNotFound, LogClosed, StoreError
from ergon.scheduler import watching
from tests.stories.helpers import soon, start, until, until_status, worker


class DeafLog(SqliteExecutionLog):
    """Nothing of what changes is heard of."""

    def subscribe(self, listener: Callable[[Hint], None]) -> Callable[[], None]:
        return super().subscribe(lambda _: None)


@flow
async def approval() -> str:
    return await wait_signal("go", str)


async def test_who_waits_for_a_result_gets_it_without_hints_while_others_come_to_wait_all_the_time(
    path: Path,
) -> None:
    async with SqliteExecutionLog(path) as log, DeafLog(path) as deaf, worker(log, approval):
        handle = await start(log, approval.bind())
        await start(log, approval.bind(), id="other")
        await until_status(handle, "suspended")
        waiting = asyncio.create_task(Scheduler(deaf).handle("f", str).result())

        async def come_and_go() -> None:
            while True:
                with contextlib.suppress(TimeoutError):
                    await Scheduler(deaf).handle("other").result(0.05)

        coming = asyncio.create_task(come_and_go())
        await asyncio.sleep(0)  # both wait
        await handle.signal("go", "approved")

        assert await soon(waiting) == "approved"
        coming.cancel()


async def test_who_waits_for_a_result_hears_of_a_defect_of_the_log(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Sequence[str]) -> Any:
        raise RuntimeError("a defect of the driver")

    handle = await start(log, approval.bind())
    monkeypatch.setattr(log, "ended_or_parked", broken)

    with pytest.raises(RuntimeError, match="driver"):
        await soon(handle.result())


class NotingLog(SqliteExecutionLog):
    """Counts how often it is asked how flows ended."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.looks = 0

    async def ended_or_parked(self, flow_ids: Sequence[str]) -> tuple[list[FlowRecord], list[str]]:
        self.looks += 1
        return await super().ended_or_parked(flow_ids)


gate = [asyncio.Event()]
"""A new one for each test: it belongs to the test's event loop."""


@step
async def held() -> str:
    await gate[0].wait()
    return "done"


@flow
async def holds() -> str:
    return await held()


@pytest.fixture
def _no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is found by looking now and then."""
    monkeypatch.setattr(watching, "POLL_SECONDS", 60.0)
    gate[0] = asyncio.Event()


async def waiting_for(handle: FlowHandle[Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(handle.result())
    for _ in range(5):
        await asyncio.sleep(0)
    return task


@pytest.mark.usefixtures("_no_polls")
async def test_who_waits_for_a_flow_that_a_worker_of_the_same_process_runs_need_not_look(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, holds, drain_seconds=0.0):
        handle = await start(log, holds.bind())
        waiting = await waiting_for(handle)
        gate[0].set()

        assert await soon(waiting) == "done"
        assert log.looks == 0
        assert await soon(handle.result()) == "done"
        assert log.looks == 1, "it has left memory: only the log knows"


@pytest.mark.usefixtures("_no_polls")
async def test_who_waits_for_a_flow_that_runs_here_hears_that_it_was_killed_from_elsewhere(
    path: Path,
) -> None:
    async with (
        NotingLog(path) as log,
        SqliteExecutionLog(path) as theirs,
        worker(log, holds, drain_seconds=0.0),
    ):
        waiting = await waiting_for(await start(log, holds.bind()))
        assert log.looks == 0
        await Scheduler(theirs).handle("f").kill("enough")

        with pytest.raises(FlowCancelled, match="enough"):
            await soon(waiting)


@pytest.mark.usefixtures("_no_polls")
async def test_who_waits_for_a_flow_that_ran_here_hears_how_it_ended_elsewhere(path: Path) -> None:
    async with NotingLog(path) as log, SqliteExecutionLog(path) as theirs:
        async with worker(log, holds, drain_seconds=0.0):
            waiting = await waiting_for(await start(log, holds.bind()))
            assert log.looks == 0
        async with worker(theirs, holds):
            gate[0].set()
            assert await soon(waiting) == "done"


@pytest.mark.usefixtures("_no_polls")
@pytest.mark.parametrize("same_handle", [True, False])
async def test_who_comes_to_wait_for_a_flow_that_was_taken_from_its_worker_hears_at_once(
    path: Path, same_handle: bool
) -> None:
    """The worker keeps it in memory until it next asks which flows are no longer its own."""
    async with (
        SqliteExecutionLog(path) as log,
        SqliteExecutionLog(path) as theirs,
        worker(log, holds, poll_seconds=60.0, drain_seconds=0.0) as working,
    ):
        handle = await start(log, holds.bind())
        heard = asyncio.Event()
        log.subscribe(lambda hint: heard.set() if hint.elsewhere or hint.settled else None)
        await Scheduler(log if same_handle else theirs).handle("f").kill("enough")
        await soon(heard.wait())
        assert working._residents is not None
        assert "f" in working._residents.runs

        with pytest.raises(FlowCancelled, match="enough"):
            await soon(handle.result())
        await handle.delete()
        with pytest.raises(FlowNotFound):
            await soon(handle.result())
        assert "f" in working._residents.runs


@pytest.mark.usefixtures("_no_polls")
async def test_after_a_look_for_flows_taken_away_those_that_are_left_are_trusted_again(path: Path) -> None:
    async with NotingLog(path) as log, worker(log, holds, poll_seconds=0.02) as working:
        await start(log, holds.bind(), "killed")
        handle = await start(log, holds.bind(), "left")
        await Scheduler(log).handle("killed").kill()
        assert working._residents is not None
        residents = working._residents
        assert not residents.surely_runs("left")
        await until(lambda: residents.surely_runs("left"))
        waiting = await waiting_for(handle)
        gate[0].set()

        assert await soon(waiting) == "done"
        assert log.looks == 0


@pytest.mark.usefixtures("_no_polls")
async def test_who_waits_hears_that_the_log_was_closed(path: Path) -> None:
    log = await SqliteExecutionLog(path).connect()
    async with worker(log, holds, drain_seconds=0.0):
        handle = await start(log, holds.bind())
        waiting = await waiting_for(handle)
        await log.close()

        with pytest.raises(LogClosed):
            await soon(waiting)
        with pytest.raises(LogClosed):
            await soon(handle.result())


@pytest.mark.usefixtures("_no_polls")
async def test_who_waits_on_another_event_loop_is_told_so_at_once(path: Path) -> None:
    async with SqliteExecutionLog(path) as log, worker(log, holds, drain_seconds=0.0):
        handle = await start(log, holds.bind())

        with pytest.raises(StoreError, match="another event loop"):
            await soon(asyncio.to_thread(asyncio.run, soon(handle.result())))


@pytest.mark.usefixtures("_no_polls")
async def test_who_waits_for_a_flow_that_was_killed_before_its_worker_had_taken_it_in_hears_at_once(
    tmp_path: Path,
) -> None:
    killed = 0
    for turns in range(1, 9):
        async with (
            SqliteExecutionLog(tmp_path / f"{turns}.db") as log,
            worker(log, holds, poll_seconds=60.0, drain_seconds=0.0),
        ):
            handle = Scheduler(log).handle("f", str)
            starting = asyncio.create_task(start(log, holds.bind()))
            for _ in range(turns):
                await asyncio.sleep(0)
            with contextlib.suppress(FlowNotFound):
                await handle.kill()
                killed += 1
            await starting
            if await handle.status() == "cancelled":
                with pytest.raises(FlowCancelled):
                    await soon(handle.result(), within=5)
    assert killed
