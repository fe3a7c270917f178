"""An operator kills a flow."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    LONG_SECONDS,
    child,
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    is_near,
    new_flow,
    parent_of,
    register,
    settle,
    status_of,
)

PENDING, PAUSED, CANCELLED = TaskStatus.PENDING, TaskStatus.PAUSED, TaskStatus.CANCELLED


async def test_killing_a_flow_ends_it_with_the_output_it_is_given(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    moved = await log.move("f1", CANCELLED, reason="operator", output='"killed"')

    assert (moved.status, moved.output, moved.reason, moved.owner) == (
        CANCELLED,
        '"killed"',
        "operator",
        None,
    )
    assert is_near(moved.ended_at, log.now())
    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", lease, (event(1),)))


@pytest.mark.parametrize(
    "status", [PENDING, TaskStatus.SUSPENDED, PAUSED, TaskStatus.PARKED, TaskStatus.RUNNING]
)
async def test_a_flow_that_has_not_ended_can_be_killed(log: ExecutionLog, status: TaskStatus) -> None:
    await register(log)
    lease = await claimed_flow(log)
    if status is PAUSED:
        await log.move("f1", PAUSED)
    elif status is not TaskStatus.RUNNING:
        await settle(log, "f1", lease, status)

    assert (await log.move("f1", CANCELLED)).status is CANCELLED

    assert await claim(log) == []


async def test_a_flow_that_never_started_can_be_killed(log: ExecutionLog) -> None:
    await log.create(new_flow("f1", delay_seconds=LONG_SECONDS))

    moved = await log.move("f1", CANCELLED)

    assert (moved.status, moved.started_at, moved.wake_at) == (CANCELLED, None, None)


async def test_killing_what_is_cancelled_changes_nothing(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    first = await log.move("f1", CANCELLED, reason="first")

    assert await log.move("f1", CANCELLED, reason="second") == first


async def test_killing_a_flow_tells_its_parent_and_cancels_its_children(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child("f"))
    flow = await claim_one(log, "f")
    await commit(log, Commit("f", flow.lease, children=(new_flow("c", parent_id="f", parent_op="0:1"),)))

    await log.move("f", CANCELLED)

    assert [message.kind for message in await log.inbox("p")] == ["child"]
    assert await status_of(log, "c") is CANCELLED


async def test_a_killed_flow_keeps_its_history(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))

    await log.move("f1", CANCELLED)

    assert await log.history("f1") == [event(1)]
