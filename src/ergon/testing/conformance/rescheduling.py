"""Another start time for a flow that has not started."""

from __future__ import annotations

import pytest

from ergon.core.status import TaskStatus
from ergon.errors import FlowNotFound, IllegalMove
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    LONG_SECONDS,
    claim,
    claimed_flow,
    ids,
    is_near,
    new_flow,
    record,
    register,
    settle,
    stamp,
    until,
)


async def test_a_flow_can_be_put_off(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1"))

    moved = await log.reschedule("f1", delay_seconds=LONG_SECONDS)

    assert moved == await record(log, "f1")
    assert is_near(moved.wake_at, log.now() + LONG_SECONDS)
    assert await claim(log) == []
    assert await claim(log, flow_id="f1") == []


async def test_a_flow_can_be_given_an_exact_start_time(log: ExecutionLog) -> None:
    await log.create(new_flow("f1", delay_seconds=LONG_SECONDS))
    at = log.now() + 2 * LONG_SECONDS

    moved = await log.reschedule("f1", at=at)

    assert moved.wake_at is not None
    assert abs(moved.wake_at - at) < 1e-5
    assert await log.next_wake(["order"]) == moved.wake_at


async def test_a_flow_can_be_brought_forward(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", delay_seconds=LONG_SECONDS))

    due = (await log.reschedule("f1", delay_seconds=0.05)).wake_at or 0.0

    (claimed,) = await until(lambda: claim(log))
    assert claimed.flow.started_at is not None
    assert claimed.flow.started_at >= due


async def test_a_flow_can_be_started_at_once(log: ExecutionLog) -> None:
    await register(log)
    for id in ("neither", "past", "no delay"):
        await log.create(new_flow(id, delay_seconds=LONG_SECONDS))

    await log.reschedule("neither")
    await log.reschedule("past", at=log.now() - 60)
    await log.reschedule("no delay", delay_seconds=0.0)

    assert sorted(ids(await claim(log))) == ["neither", "no delay", "past"]


async def test_a_paused_flow_stays_paused_and_starts_at_its_new_time_when_resumed_before_it(
    log: ExecutionLog,
) -> None:
    await register(log)
    await log.create(new_flow("f1"))
    await log.move("f1", TaskStatus.PAUSED)

    moved = await log.reschedule("f1", at=log.now() + LONG_SECONDS)

    assert moved.status is TaskStatus.PAUSED
    resumed = await log.move("f1", TaskStatus.PENDING)
    assert is_near(resumed.wake_at, log.now() + LONG_SECONDS)
    assert await claim(log) == []


async def test_a_paused_flow_whose_new_time_has_passed_starts_when_it_is_resumed(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", delay_seconds=LONG_SECONDS))
    await log.move("f1", TaskStatus.PAUSED)
    await log.reschedule("f1", delay_seconds=0.0)
    due = await stamp(log)

    async def has_passed() -> bool:
        return await stamp(log) > due

    await until(has_passed)

    assert (await log.move("f1", TaskStatus.PENDING)).wake_at is None
    assert ids(await claim(log)) == ["f1"]


@pytest.mark.parametrize("status", [TaskStatus.RUNNING, TaskStatus.SUSPENDED, TaskStatus.PENDING])
async def test_a_flow_that_has_started_keeps_its_time(log: ExecutionLog, status: TaskStatus) -> None:
    await register(log)
    lease = await claimed_flow(log, "f1")
    if status is not TaskStatus.RUNNING:
        await settle(log, "f1", lease, status, wake_at=log.now() + LONG_SECONDS)
    before = await record(log, "f1")

    with pytest.raises(IllegalMove) as refused:
        await log.reschedule("f1", delay_seconds=10)

    assert refused.value.status == status
    assert await record(log, "f1") == before


async def test_a_flow_that_has_ended_before_it_started_keeps_its_end(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    await log.move("f1", TaskStatus.CANCELLED)

    with pytest.raises(IllegalMove) as refused:
        await log.reschedule("f1", delay_seconds=10)

    assert refused.value.status == "cancelled"


async def test_rescheduling_what_is_not_there_says_so(log: ExecutionLog) -> None:
    with pytest.raises(FlowNotFound):
        await log.reschedule("nobody")


async def test_rescheduling_moves_no_other_flow(log: ExecutionLog) -> None:
    for id in ("f1", "f10", "F1"):
        await log.create(new_flow(id, delay_seconds=LONG_SECONDS))
    before = [await record(log, id) for id in ("f10", "F1")]

    await log.reschedule("f1")

    assert [await record(log, id) for id in ("f10", "F1")] == before
