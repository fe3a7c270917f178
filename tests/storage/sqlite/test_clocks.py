"""What needs a clock that stands still: to the millisecond, over a day, and when the wall clock is set."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator

import pytest

from ergon.core.commit import Commit
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.sqlite import InMemoryExecutionLog, SqliteExecutionLog
from tests.storage.kit import SettableClock, claim, claimed_flow, commit, event, new_flow, register, settle


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture(params=["file", "memory"])
async def log(request, file, clock) -> AsyncIterator[SqliteExecutionLog]:
    made = (
        SqliteExecutionLog(file, clock=clock)
        if request.param == "file"
        else InMemoryExecutionLog(clock=clock)
    )
    async with made as opened:
        yield opened


def ids(claimed):
    return [one.flow.id for one in claimed]


async def test_setting_the_wall_clock_neither_ends_nor_extends_a_lease(log, clock):
    await register(log, lease_seconds=30)

    clock.step_wall(100_000)
    assert await log.reap() == []
    clock.step_wall(-200_000)
    assert await log.reap() == []
    clock.advance(30)
    assert len(await log.reap()) == 1


async def test_a_lease_ends_at_its_time_and_not_before(log, clock):
    await register(log, lease_seconds=30)
    clock.advance(20)
    assert await log.renew("w1", lease_seconds=30) == log.now() + 30

    clock.advance(29.999)
    assert await log.reap() == []
    clock.advance(0.001)
    assert [worker.id for worker in await log.reap()] == ["w1"]


async def test_a_worker_whose_lease_is_over_works_on_until_it_is_declared_dead(log, clock):
    """Only the reaper decides, so that no two ever own one flow."""
    await register(log, lease_seconds=30)
    lease = await claimed_flow(log)
    clock.advance(60)

    await commit(log, Commit("f1", lease, (event(1),)))
    await log.reap()

    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", lease, (event(2),)))


async def test_a_worker_of_an_earlier_start_of_the_machine_is_dead(log):
    """A file is on one machine, which starts once at a time."""
    await register(log, boot_id="11111111-2222-3333-4444-555555555555", lease_seconds=10_000)

    assert [one.id for one in await log.reap()] == ["w1"]


async def test_a_lease_can_be_extended_from_a_thread_while_the_event_loop_is_blocked(log, clock):
    await register(log, lease_seconds=30)
    await log.workers()
    clock.advance(20)

    thread = threading.Thread(target=log.keep_alive, args=("w1",), kwargs={"lease_seconds": 30})
    thread.start()
    time.sleep(0.2)
    clock.advance(29)  # by now it has been written, or the lease has run out

    assert await log.reap() == []
    thread.join()


async def test_a_flow_starts_at_its_time_and_not_before(log, clock):
    await register(log)
    await log.create(new_flow("at", start_at=log.now() + 10))
    await log.create(new_flow("delayed", delay_seconds=20.0))

    assert await log.next_wake(["order"]) == log.now() + 10
    clock.advance(9.999)
    assert await claim(log) == []
    clock.advance(0.001)
    assert ids(await claim(log)) == ["at"]
    clock.advance(10)
    assert ids(await claim(log, flow_id="delayed")) == ["delayed"]
    assert await log.next_wake(["order"]) is None


async def test_a_sleeping_flow_wakes_at_its_time_and_not_before(log, clock):
    await register(log)
    await settle(log, "f1", await claimed_flow(log), TaskStatus.SUSPENDED, wake_at=log.now() + 5)

    clock.advance(4.999)
    assert await claim(log) == []
    clock.advance(0.001)
    assert ids(await claim(log)) == ["f1"]


async def test_workers_that_ended_are_forgotten_after_a_day(log, clock):
    await register(log, "old")
    await log.retire("old")
    clock.advance(86_400 + 3_600 + 1)

    await register(log, "new")

    assert [worker.id for worker in await log.workers()] == ["new"]
