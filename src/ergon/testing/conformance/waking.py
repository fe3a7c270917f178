"""What a message does to the flow it is for."""

from __future__ import annotations

from ergon.core.commit import Commit, Settled
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    new_flow,
    record,
    register,
    settle,
    signal,
    status_of,
)


async def test_a_signal_wakes_a_sleeping_flow(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=log.now() + 1_000)

    await log.send(signal("f1", payload='"yes"'))

    flow = await record(log, "f1")
    assert (flow.status, flow.wake_at) == (TaskStatus.PENDING, None)
    (claimed,) = await claim(log)
    assert [message.payload for message in claimed.inbox] == ['"yes"']


async def test_a_flow_that_was_woken_stands_behind_those_that_were_ready_before(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "asleep", await claimed_flow(log, "asleep"), TaskStatus.SUSPENDED)
    await log.create(new_flow("ready"))

    await log.send(signal("asleep"))

    assert [one.flow.id for one in await claim(log)] == ["ready", "asleep"]


async def test_a_signal_does_not_wake_a_flow_that_is_held_back(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("paused"))
    await log.move("paused", TaskStatus.PAUSED)
    await settle(log, "parked", await claimed_flow(log, "parked"), TaskStatus.PARKED)

    for id in ("paused", "parked"):
        await log.send(signal(id))

    assert [await status_of(log, id) for id in ("paused", "parked")] == [TaskStatus.PAUSED, TaskStatus.PARKED]


async def test_a_repeated_key_wakes_nobody(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", key="k"))
    (message,) = await log.inbox("f1")
    await settle(log, "f1", lease, TaskStatus.SUSPENDED, inbox_seen=message.id)

    await log.send(signal("f1", key="k"))

    assert await status_of(log, "f1") is TaskStatus.SUSPENDED


async def test_a_signal_leaves_a_running_flow_with_its_owner(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    await log.send(signal("f1"))

    flow = await record(log, "f1")
    assert (flow.status, flow.owner) == (TaskStatus.RUNNING, "w1")
    await commit(log, Commit("f1", lease, (event(1),)))


async def test_a_message_that_came_while_a_flow_went_to_sleep_wakes_it_at_once(log: ExecutionLog) -> None:
    """The owner had not seen it: without this the flow would sleep on its own signal."""
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1"))

    await settle(log, "f1", lease, TaskStatus.SUSPENDED, inbox_seen=0, wake_at=log.now() + 999)

    flow = await record(log, "f1")
    assert (flow.status, flow.wake_at) == (TaskStatus.PENDING, None)


async def test_a_message_the_owner_saw_and_left_does_not_wake_the_flow(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1"))
    (seen,) = await log.inbox("f1")

    await settle(log, "f1", lease, TaskStatus.SUSPENDED, inbox_seen=seen.id)

    assert await status_of(log, "f1") is TaskStatus.SUSPENDED


async def test_a_message_the_owner_consumes_as_it_goes_to_sleep_does_not_wake_the_flow(
    log: ExecutionLog,
) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1"))
    (message,) = await log.inbox("f1")
    await commit(
        log,
        Commit(
            "f1", lease, (event(1),), ((message.id, 1),), settled=Settled(TaskStatus.SUSPENDED, inbox_seen=0)
        ),
    )

    assert await status_of(log, "f1") is TaskStatus.SUSPENDED


async def test_a_signal_returned_as_the_flow_goes_to_sleep_unseen_wakes_it(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1"))
    (message,) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), ((message.id, 1),)))
    await commit(log, Commit("f1", lease, (event(2),), settled=Settled(TaskStatus.SUSPENDED), returned=(1,)))

    assert await status_of(log, "f1") is TaskStatus.PENDING


async def test_an_unread_signal_of_a_failed_flow_is_there_for_its_next_attempt(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1"))
    await settle(log, "f1", lease, TaskStatus.FAILED, output='"boom"')
    await log.move("f1", TaskStatus.PENDING)

    assert [message.name for message in (await claim_one(log, "f1")).inbox] == ["go"]
