"""What failed is tried again: a flow by a person's act, and at once what waits to be tried again."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.errors import FlowNotFound, IllegalMove
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    LONG_SECONDS,
    child,
    claim_one,
    claimed_flow,
    commit,
    event,
    finish,
    is_near,
    new_flow,
    parent_of,
    record,
    register,
    settle,
    status_of,
)


def back_off(seq: int, until: float, kind: str = "step_retried") -> Event:
    """An attempt failed, and the next is due then."""
    return Event(seq, kind, "0:1", "charge", "", '{"type":"Boom"}', until, "", 1)


async def test_a_failed_flow_that_is_retried_has_its_failure_in_its_history(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))
    await settle(log, "f1", lease, TaskStatus.FAILED, output='"boom"')

    moved = await log.move("f1", TaskStatus.PENDING)

    assert (moved.status, moved.output, moved.ended_at, moved.wake_at) == (
        TaskStatus.PENDING,
        None,
        None,
        None,
    )
    first, retried = await log.history("f1")
    assert first == event(1)
    assert (retried.seq, retried.kind, retried.payload, retried.attempt) == (2, "flow_retried", '"boom"', 1)
    assert (retried.op, retried.name, retried.digest, retried.source) == ("", "", "", "")
    assert is_near(retried.at, log.now())


async def test_a_flow_without_a_history_can_be_retried_too(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), TaskStatus.FAILED, output='"boom"')

    await log.move("f1", TaskStatus.PENDING)

    assert [(e.seq, e.kind) for e in (await claim_one(log, "f1")).events] == [(1, "flow_retried")]


async def test_each_retry_of_a_flow_counts_on(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1"))
    for n in range(3):
        await finish(log, "f1", TaskStatus.FAILED, output=f'"{n}"')
        await log.move("f1", TaskStatus.PENDING)

    found = await log.history("f1")

    assert [(e.seq, e.attempt, e.payload) for e in found] == [(n + 1, n + 1, f'"{n}"') for n in range(3)]


async def test_a_retried_flow_has_its_whole_time_again(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", timeout_seconds=60.0))
    first = await claim_one(log, "f1")
    await settle(log, "f1", first.lease, TaskStatus.FAILED, output='"boom"')

    assert (await log.move("f1", TaskStatus.PENDING)).deadline_at is None
    again = await claim_one(log, "f1")

    assert again.flow.started_at == first.flow.started_at
    assert again.flow.deadline_at is not None
    assert first.flow.deadline_at is not None
    assert again.flow.deadline_at > first.flow.deadline_at


async def test_a_retried_flow_is_claimed_and_goes_on_writing(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), TaskStatus.FAILED, output='"boom"')
    await log.move("f1", TaskStatus.PENDING)

    again = await claim_one(log, "f1")
    await commit(log, Commit("f1", again.lease, (event(2),)))
    await settle(log, "f1", again.lease, output='"well"')

    assert (await record(log, "f1")).output == '"well"'


async def test_a_resumed_flow_has_no_event_of_a_retry(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), TaskStatus.PARKED)

    await log.move("f1", TaskStatus.PENDING)

    assert await log.history("f1") == []


async def test_a_step_that_backs_off_in_a_sleeping_flow_is_tried_again_at_once(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    later = log.now() + LONG_SECONDS
    await commit(log, Commit("f1", lease, (back_off(1, later),)))
    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=later)

    moved = await log.retry_now("f1")

    assert (moved.status, moved.wake_at) == (TaskStatus.PENDING, None)
    asked = (await claim_one(log, "f1")).events[-1]
    assert (asked.seq, asked.kind, asked.payload) == (2, "retry_now", None)
    assert is_near(asked.at, log.now())


async def test_a_flow_that_waits_to_be_tried_again_is_tried_at_once(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    later = log.now() + LONG_SECONDS
    await commit(log, Commit("f1", lease, (back_off(1, later, "flow_retried"),)))
    await settle(log, "f1", lease, TaskStatus.PENDING, wake_at=later)

    await log.retry_now("f1")

    assert [e.kind for e in (await claim_one(log, "f1")).events] == ["flow_retried", "retry_now"]


async def test_a_running_flow_is_told_to_try_again_and_its_owner_writes_the_event(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (back_off(1, log.now() + LONG_SECONDS),)))

    moved = await log.retry_now("f1")

    assert (moved.status, moved.owner) == (TaskStatus.RUNNING, "w1")
    (told,) = await log.inbox("f1")
    assert told.kind == "retry_now"
    assert len(await log.history("f1")) == 1
    await commit(log, Commit("f1", lease, (event(2),), ((told.id, 2),)))


async def test_a_flow_of_which_nothing_backs_off_is_not_retried(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("new"))
    lease = await claimed_flow(log, "past")
    await commit(log, Commit("past", lease, (back_off(1, log.now() - 60),)))
    await settle(log, "asleep", await claimed_flow(log, "asleep"), TaskStatus.SUSPENDED)

    for id, status in (("new", "pending"), ("past", "running"), ("asleep", "suspended")):
        with pytest.raises(IllegalMove) as refused:
            await log.retry_now(id)
        assert refused.value.status == status
        assert await log.inbox(id) == []


async def test_a_back_off_that_was_ended_is_not_ended_again(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    later = log.now() + LONG_SECONDS
    await commit(log, Commit("f1", lease, (back_off(1, later),)))
    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=later)
    await log.retry_now("f1")

    with pytest.raises(IllegalMove):
        await log.retry_now("f1")

    assert [e.kind for e in await log.history("f1")] == ["step_retried", "retry_now"]


async def test_a_new_back_off_after_one_that_was_ended_can_be_ended_too(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    later = log.now() + LONG_SECONDS
    await commit(log, Commit("f1", lease, (back_off(1, later),)))
    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=later)
    await log.retry_now("f1")
    again = await claim_one(log, "f1")
    await commit(log, Commit("f1", again.lease, (back_off(3, later),)))
    await settle(log, "f1", again.lease, TaskStatus.SUSPENDED, wake_at=later)

    await log.retry_now("f1")

    assert [e.seq for e in await log.history("f1")] == [1, 2, 3, 4]


@pytest.mark.parametrize("status", [TaskStatus.PARKED, TaskStatus.FAILED, TaskStatus.COMPLETED])
async def test_a_flow_that_is_held_back_or_has_ended_is_not_tried_at_once(
    log: ExecutionLog, status: TaskStatus
) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (back_off(1, log.now() + LONG_SECONDS),)))
    await settle(log, "f1", lease, status)

    with pytest.raises(IllegalMove):
        await log.retry_now("f1")

    assert await status_of(log, "f1") is status
    assert len(await log.history("f1")) == 1


async def test_retrying_at_once_what_is_not_there_says_so(log: ExecutionLog) -> None:
    with pytest.raises(FlowNotFound):
        await log.retry_now("nobody")


async def test_a_flow_whose_parent_has_ended_can_be_retried(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child(close_with_parent=False))
    await finish(log, "c", TaskStatus.FAILED, output='"boom"')
    await settle(log, "p", lease)

    assert (await log.move("c", TaskStatus.PENDING)).status is TaskStatus.PENDING
