"""Whoever did not hear the answer to a write repeats it, and that is safe."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit, Settled
from ergon.core.status import TaskStatus
from ergon.errors import IllegalMove, LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    child,
    claim,
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    new_flow,
    parent_of,
    record,
    register,
    settle,
    signal,
    status_of,
    stop,
)


async def test_a_commit_of_everything_that_comes_twice_is_one(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child("old", "0:1"))
    await claim_one(log, "old")
    await log.send(signal("p"))
    (message,) = await log.inbox("p")
    whole = Commit(
        "p",
        lease,
        (event(1),),
        consumed=((message.id, 1),),
        cancels=(stop("old", "0:1"),),
        children=(child("new", "0:2"),),
        settled=Settled(TaskStatus.SUSPENDED, inbox_seen=message.id),
    )
    await commit(log, whole)
    before = await record(log, "p"), await record(log, "new"), await log.inbox("old")

    await commit(log, whole)

    assert (await record(log, "p"), await record(log, "new"), await log.inbox("old")) == before
    assert await log.history("p") == [event(1)]


async def test_a_commit_that_comes_twice_at_once_is_one(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    step = Commit("f1", lease, (event(1),))

    assert await commit_all(log, step, step, step) == [None] * 3

    assert await log.history("f1") == [event(1)]


async def test_a_commit_that_landed_is_known_though_its_flow_went_on(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    lease = await claimed_flow(log)
    last = Commit("f1", lease, (event(1),), settled=Settled(TaskStatus.PENDING))
    await commit(log, last)
    again = await claim_one(log, "f1", "w2")

    await commit(log, last)

    assert (await record(log, "f1")).owner == "w2"
    await commit(log, Commit("f1", again.lease, (event(2),)))


async def test_a_commit_without_events_that_let_its_flow_go_is_a_lost_lease_when_repeated(
    log: ExecutionLog,
) -> None:
    """Nothing tells it from another; and nothing of it is lost or done twice."""
    await register(log)
    lease = await claimed_flow(log)
    last = Commit("f1", lease, settled=Settled(TaskStatus.COMPLETED, "1"))
    await commit(log, last)

    with pytest.raises(LeaseLost):
        await commit(log, last)

    assert (await record(log, "f1")).output == "1"


async def test_a_commit_of_children_that_comes_twice_starts_each_once(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")
    ask = Commit("p", lease, children=(child("a", "0:1"), child("b", "0:2")))

    for _ in range(3):
        await commit(log, ask)

    assert [await status_of(log, id) for id in ("a", "b")] == [TaskStatus.PENDING] * 2
    assert await log.inbox("p") == []


async def test_a_new_flow_that_comes_twice_is_there_once_with_what_came_first(log: ExecutionLog) -> None:
    flow = new_flow("f1", input='{"a":1}')
    await log.create(flow)

    found = await log.create(flow)

    assert found is not None
    assert (found.name, found.input) == (flow.name, flow.input)


async def test_a_new_flow_of_its_own_that_a_worker_creates_twice_stays_its_own(log: ExecutionLog) -> None:
    await register(log)
    flow = new_flow("f1", owner="w1")
    await log.create(flow)

    found = await log.create(flow)

    assert found is not None
    assert (found.owner, found.claims) == ("w1", 1)


async def test_a_signal_with_a_key_that_comes_twice_is_heard_once_however_far_apart(
    log: ExecutionLog,
) -> None:
    await register(log)
    lease = await claimed_flow(log)
    message = signal("f1", key="k")
    await log.send(message)
    (received,) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), ((received.id, 1),)))
    await log.send(message)
    await settle(log, "f1", lease)

    await log.send(message)

    assert await log.inbox("f1") == []
    assert await log.history("f1") == [event(1)]


async def test_an_act_that_comes_twice_is_done_once(log: ExecutionLog) -> None:
    await register(log)
    await claimed_flow(log)

    paused = await log.move("f1", TaskStatus.PAUSED)
    assert await log.move("f1", TaskStatus.PAUSED) == paused
    await log.move("f1", TaskStatus.PENDING)
    with pytest.raises(IllegalMove) as refused:
        await log.move("f1", TaskStatus.PENDING)
    assert refused.value.status == "pending", "whoever asked sees that it is so already"
    killed = await log.move("f1", TaskStatus.CANCELLED)
    assert await log.move("f1", TaskStatus.CANCELLED) == killed
    assert await log.delete("f1") is True
    assert await log.delete("f1") is False


async def test_a_retry_that_comes_twice_writes_one_event(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), TaskStatus.FAILED, output='"boom"')
    await log.move("f1", TaskStatus.PENDING)

    with pytest.raises(IllegalMove):
        await log.move("f1", TaskStatus.PENDING)

    assert len(await log.history("f1")) == 1


async def test_a_killed_flow_that_is_killed_again_tells_its_parent_once(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child())

    for _ in range(2):
        await log.move("c", TaskStatus.CANCELLED)

    assert len(await log.inbox("p")) == 1


async def test_a_registration_that_comes_twice_is_one_worker(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    await register(log)

    assert len(await log.workers()) == 1
    await commit(log, Commit("f1", lease, (event(1),)))


async def test_an_end_of_a_worker_that_comes_twice_is_one(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    await claimed_flow(log)
    assert await log.retire("w1") == 1
    taken = await claim_one(log, "f1", "w2")

    assert await log.retire("w1") == 0

    await commit(log, Commit("f1", taken.lease, (event(1),)))


async def test_a_claim_whose_answer_was_lost_keeps_its_flows_from_nobody_for_long(log: ExecutionLog) -> None:
    await register(log)
    for n in range(4):
        await log.create(new_flow(f"f{n}"))
    lost = await claim(log, limit=2)
    known = await claim(log, limit=1)

    given_back = await log.disown("w1", [(one.flow.id, one.lease.epoch) for one in known])

    assert sorted(given_back) == sorted(one.flow.id for one in lost)
    assert len(await claim(log)) == 3


async def test_a_start_time_that_is_given_twice_is_the_same(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    at = log.now() + 3600

    assert await log.reschedule("f1", at=at) == await log.reschedule("f1", at=at)
