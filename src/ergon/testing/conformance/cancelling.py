"""A person cancels a flow: what never started has ended, what has started may clean up."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit, Message
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    LONG_SECONDS,
    cancel,
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    is_near,
    kill_worker,
    new_flow,
    record,
    register,
    settle,
    status_of,
)


@pytest.mark.parametrize("delay", [None, LONG_SECONDS], ids=["ready", "later"])
async def test_cancelling_a_flow_that_never_started_ends_it(log: ExecutionLog, delay: float | None) -> None:
    await register(log)
    await log.create(new_flow("f1", delay_seconds=delay))

    await log.send(cancel("f1"))

    flow = await record(log, "f1")
    assert (flow.status, flow.output, flow.wake_at, flow.started_at) == (
        TaskStatus.CANCELLED,
        None,
        None,
        None,
    )
    assert is_near(flow.ended_at, log.now())
    assert await claim(log) == []


async def test_cancelling_a_paused_flow_that_never_started_ends_it(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    await log.move("f1", TaskStatus.PAUSED)

    await log.send(cancel("f1"))

    assert await status_of(log, "f1") is TaskStatus.CANCELLED


async def test_a_flow_that_was_cancelled_before_it_started_says_why(log: ExecutionLog) -> None:
    for id, payload in [("said", '"not needed"'), ("unsaid", None), ("empty", '""')]:
        await log.create(new_flow(id))
        await log.send(cancel(id, payload=payload))

    assert [(await record(log, id)).reason for id in ("said", "unsaid", "empty")] == [
        "not needed",
        "cancelled before it started",
        "cancelled before it started",
    ]


async def test_cancelling_twice_a_flow_that_never_started_is_cancelling_it_once(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    await log.send(cancel("f1"))
    first = await record(log, "f1")

    await log.send(cancel("f1"))

    assert await record(log, "f1") == first


@pytest.mark.parametrize(
    "status", [TaskStatus.SUSPENDED, TaskStatus.PAUSED, TaskStatus.PARKED, TaskStatus.PENDING]
)
async def test_cancelling_a_started_flow_lets_its_code_clean_up(
    log: ExecutionLog, status: TaskStatus
) -> None:
    await register(log)
    lease = await claimed_flow(log)
    if status is TaskStatus.PAUSED:
        await log.move("f1", TaskStatus.PAUSED)
    else:
        wake_at = log.now() + 99 if status in (TaskStatus.SUSPENDED, TaskStatus.PENDING) else None
        await settle(log, "f1", lease, status, wake_at=wake_at)

    await log.send(cancel("f1"))

    claimed = await claim_one(log, "f1")
    assert [message.kind for message in claimed.inbox] == ["cancel"]
    assert claimed.flow.claims_stalled == 0


async def test_a_running_flow_is_told_to_cancel_and_stays_with_its_owner(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    await log.send(cancel("f1", payload='"enough"'))

    assert [(m.kind, m.name, m.payload) for m in await log.inbox("f1")] == [("cancel", "", '"enough"')]
    await commit(log, Commit("f1", lease, (event(1),)))
    assert await status_of(log, "f1") is TaskStatus.RUNNING


async def test_a_second_cancel_changes_nothing_until_the_flow_has_heard_the_first(log: ExecutionLog) -> None:
    await register(log)
    await claimed_flow(log)

    for reason in ('"first"', '"second"'):
        await log.send(cancel("f1", payload=reason))

    assert [message.payload for message in await log.inbox("f1")] == ['"first"']


async def test_a_flow_that_has_heard_a_cancel_can_be_cancelled_again(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(cancel("f1", payload='"first"'))
    (first,) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), ((first.id, 1),)))

    await log.send(cancel("f1", payload='"second"'))

    assert [message.payload for message in await log.inbox("f1")] == ['"second"']


async def test_a_repeated_cancel_lets_a_flow_go_on_that_was_held_back_meanwhile(log: ExecutionLog) -> None:
    """Whoever repeats it means it, also now."""
    await register(log)
    await claimed_flow(log)
    await log.send(cancel("f1"))
    await log.move("f1", TaskStatus.PAUSED)

    await log.send(cancel("f1"))

    assert [message.kind for message in (await claim_one(log, "f1")).inbox] == ["cancel"]


async def test_a_cancel_that_is_unread_survives_its_flows_worker(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    await claimed_flow(log)
    await log.send(cancel("f1"))
    await kill_worker(log, "w1")

    assert [message.kind for message in (await claim_one(log, "f1", "w2")).inbox] == ["cancel"]


async def test_a_cancel_wakes_a_flow_that_waits_to_be_tried_again(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await settle(log, "f1", lease, TaskStatus.PENDING, wake_at=log.now() + LONG_SECONDS)

    await log.send(cancel("f1"))

    assert (await record(log, "f1")).wake_at is None
    assert len(await claim(log)) == 1


async def test_a_flow_paused_before_its_first_claim_and_cancelled_is_never_claimed(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", delay_seconds=LONG_SECONDS))
    await log.move("f1", TaskStatus.PAUSED)
    await log.send(cancel("f1"))

    assert await claim(log, flow_id="f1") == []
    assert await log.next_wake(["order"]) is None


async def test_whoever_insists_on_a_cancel_is_heard_beside_the_first(log: ExecutionLog) -> None:
    await register(log)
    await claimed_flow(log)
    await log.send(cancel("f1"))

    await log.send(Message("f1", "cancel", "again", '"now"', "cancel"))

    assert [message.name for message in await log.inbox("f1")] == ["", "again"]


async def test_a_reason_that_is_no_json_text_is_told_as_it_is(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    await log.send(cancel("f1", payload="{not json"))

    assert (await record(log, "f1")).reason == "{not json"
