"""Flows on PostgreSQL as users would write them: workers on several machines, and a server that is not always there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from ergon import PostgresExecutionLog, Scheduler, Worker, WorkerOptions, flow, wait_signal
from ergon.testing.conformance.kit import new_flow, until
from tests.servers import postgres
from tests.storage.postgres.flows import counted, sum_up

QUICK = WorkerOptions(lease_seconds=3.0, poll_seconds=0.2, reap_seconds=0.2, evict_after_seconds=0.1)


@flow
async def ask() -> str:
    return await wait_signal("answer", str)


@pytest.fixture
def server() -> Iterator[postgres.Postgres]:
    """A server of its own, to be ended and started again."""
    own = postgres.Postgres(settings={"fsync": "on"})
    yield own
    own.stop()


@pytest.fixture
async def two_logs(url: str) -> AsyncIterator[tuple[PostgresExecutionLog, PostgresExecutionLog]]:
    async with (
        PostgresExecutionLog(url, require="D1") as one,
        PostgresExecutionLog(url, require="D1") as other,
    ):
        yield one, other


async def test_a_flow_runs_to_its_end(url):
    async with PostgresExecutionLog(url, require="D1") as log, Worker(log, flows=[sum_up], options=QUICK):
        handle = await Scheduler(log).schedule(sum_up.bind(20), id="sum")

        assert await handle.result() == 20


async def test_a_flow_that_sleeps_is_woken_by_a_signal_from_another_process(two_logs):
    here, there = two_logs
    async with Worker(here, flows=[ask], options=QUICK):
        handle = await Scheduler(there).schedule(ask.bind(), id="ask")
        await until(lambda: _is(handle, "suspended"))

        await handle.signal("answer", "yes")

        assert await handle.result() == "yes"


async def test_many_flows_share_two_workers_and_each_runs_once(two_logs):
    async with (
        Worker(two_logs[0], "one", flows=[sum_up], options=QUICK),
        Worker(two_logs[1], "other", flows=[sum_up], options=QUICK),
    ):
        scheduler = Scheduler(two_logs[0])
        handles = [await scheduler.schedule(sum_up.bind(3), id=f"sum-{n}") for n in range(60)]

        assert [await handle.result() for handle in handles] == [3] * 60
    for handle in handles:
        events = await two_logs[0].history(handle.id)
        assert [event.kind for event in events] == ["step_completed"] * 3


@pytest.mark.parametrize("how", ["crash", "shut_down"])
async def test_flows_go_on_when_their_server_was_restarted(server, how):
    async with PostgresExecutionLog(server.url()) as log, Worker(log, flows=[sum_up], options=QUICK):
        handle = await Scheduler(log).schedule(sum_up.bind(200), id="sum")
        await until(lambda: _has_events(log, "sum", 20))

        getattr(server, how)()
        server.start()

        assert await handle.result() == 200
        assert [event.seq for event in await log.history("sum")] == list(range(1, 201))


async def test_a_server_that_is_restarted_while_tables_are_made_has_them_afterwards(server):
    in_front = await asyncpg.connect(server.url())
    await in_front.execute("SELECT pg_advisory_lock(hashtextextended('ergon ergon', 0))")
    log = PostgresExecutionLog(server.url())
    connecting = asyncio.create_task(log.connect())
    held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    await until(lambda: _is_one(in_front, held))

    server.crash()
    server.start()

    await connecting
    assert await log.create(new_flow("f1")) is None
    await log.close()


async def test_a_worker_that_was_killed_is_replaced_and_its_finished_steps_stay_done(url, tmp_path):
    program = [sys.executable, "-m", "tests.storage.postgres.programs", url, str(tmp_path / "ran")]
    first = subprocess.Popen(program)
    async with PostgresExecutionLog(url, require="D1") as log:
        handle = await Scheduler(log).schedule(counted.bind(str(tmp_path / "ran"), 40), id="sum")
        await until(lambda: _has_events(log, "sum", 5))
        first.send_signal(signal.SIGKILL)
        first.wait()

        async with Worker(log, flows=[counted], options=QUICK):
            assert await handle.result() == 40

    ran = (tmp_path / "ran").read_text().split()
    assert set(ran) == {str(n) for n in range(40)}
    assert len(ran) <= 41, "only the step that was open may have run twice"


async def test_a_worker_frozen_beyond_its_lease_writes_nothing_more_and_goes_on_under_another_name(
    url, tmp_path
):
    program = [sys.executable, "-m", "tests.storage.postgres.programs", url, str(tmp_path / "ran")]
    first = subprocess.Popen(program)
    async with PostgresExecutionLog(url, require="D1") as log:
        handle = await Scheduler(log).schedule(counted.bind(str(tmp_path / "ran"), 150), id="sum")
        await until(lambda: _has_events(log, "sum", 5))
        os.kill(first.pid, signal.SIGSTOP)
        async with Worker(log, flows=[counted], options=QUICK):
            result = asyncio.create_task(handle.result())
            await until(lambda: _is_owned_by_another(log, first))
            os.kill(first.pid, signal.SIGCONT)

            assert await result == 150
        first.kill()
        first.wait()
        events = await log.history("sum")
        assert [event.seq for event in events] == list(range(1, 151))
        assert [event.payload for event in events] == [str(n) for n in range(150)]


async def _is(handle, status: str) -> bool:
    return str(await handle.status()) == status


async def _is_one(connection: asyncpg.Connection, sql: str) -> bool:
    return bool(await connection.fetchval(sql) == 1)


async def _has_events(log: PostgresExecutionLog, flow_id: str, least: int) -> bool:
    return len(await log.history(flow_id)) >= least


async def _is_owned_by_another(log: PostgresExecutionLog, process: subprocess.Popen[bytes]) -> bool:
    record = await log.find("sum")
    owners = {worker.id: worker.pid for worker in await log.workers()}
    return record is not None and record.owner is not None and owners[record.owner] != process.pid
