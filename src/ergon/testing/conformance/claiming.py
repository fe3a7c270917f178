"""What a claim gives: ready flows, each to one worker, by priority and then by how long they have been ready."""

from __future__ import annotations

import asyncio

import pytest

from ergon.core.commit import Commit, Lease
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    ids,
    is_near,
    new_flow,
    record,
    register,
    settle,
    signal,
    status_of,
    until,
)


async def test_flows_are_claimed_by_priority_and_then_by_how_long_they_are_ready(log: ExecutionLog) -> None:
    await register(log)
    for id, priority in [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)]:
        await log.create(new_flow(id, priority=priority))

    assert ids(await claim(log, limit=3)) == ["b", "d", "a"]
    assert ids(await claim(log)) == ["c", "e"]
    assert await claim(log) == []


async def test_priorities_of_any_size_are_compared_as_numbers(log: ExecutionLog) -> None:
    await register(log)
    priorities = [2**62, 10, 9, 2, 0, -2, -10, -(2**62)]
    for priority in sorted(priorities, key=str):
        await log.create(new_flow(f"{priority}", priority=priority))

    claimed = await claim(log)

    assert [one.flow.priority for one in claimed] == priorities


async def test_large_priorities_that_differ_by_one_are_told_apart(log: ExecutionLog) -> None:
    """They are whole numbers up to 2**63, of which a float keeps 53 bits."""
    await register(log)
    for priority in (2**60, 2**60 + 2, 2**60 + 1):
        await log.create(new_flow(f"{priority}", priority=priority))

    claimed = await claim(log)

    assert [one.flow.priority for one in claimed] == [2**60 + 2, 2**60 + 1, 2**60]


async def test_a_flow_given_back_stands_behind_those_that_were_ready_before(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, "first")
    await log.create(new_flow("second"))
    await settle(log, "first", lease, TaskStatus.PENDING)

    assert ids(await claim(log)) == ["second", "first"]


async def test_priority_holds_across_queues_names_and_versions(log: ExecutionLog) -> None:
    await register(log)
    for n, (queue, name, version) in enumerate(
        [("q1", "a", None), ("q2", "b", "v1"), ("q1", "b", "v2"), ("q2", "a", "v1")]
    ):
        await log.create(new_flow(f"f{n}", queue=queue, name=name, version=version, priority=n))

    claimed = await claim(log, names=("a", "b"), queues=("q1", "q2"), limit=3)

    assert ids(claimed) == ["f3", "f2", "f1"]


async def test_readiness_holds_across_queues_names_and_versions(log: ExecutionLog) -> None:
    await register(log)
    kinds = [("q1", "a", None), ("q2", "b", "v1"), ("q1", "b", "v2"), ("q2", "a", "v1")]
    for n, (queue, name, version) in enumerate(kinds * 3):
        await log.create(new_flow(f"f{n:02}", queue=queue, name=name, version=version))

    claimed = await claim(log, names=("a", "b"), queues=("q1", "q2"), limit=7)

    assert ids(claimed) == [f"f{n:02}" for n in range(7)]


async def test_a_claim_takes_no_more_than_its_limit(log: ExecutionLog) -> None:
    await register(log)
    for n in range(5):
        await log.create(new_flow(f"f{n}"))

    assert await claim(log, limit=0) == []
    assert len(await claim(log, limit=2)) == 2
    assert len(await claim(log, limit=2)) == 2
    assert len(await claim(log, limit=2)) == 1


async def test_a_claim_makes_the_flow_running_and_owned(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1"))

    (claimed,) = await claim(log)

    assert (claimed.lease.worker, claimed.lease.claims) == ("w1", 1)
    flow = await record(log, "f1")
    assert (flow.status, flow.owner, flow.claims, flow.wake_at) == (TaskStatus.RUNNING, "w1", 1, None)
    assert is_near(flow.started_at, log.now())
    assert claimed.flow == flow


async def test_a_claim_brings_history_and_unread_messages(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", payload="1"))
    (read,) = await log.inbox("f1")
    await log.send(signal("f1", payload="2"))
    await log.send(signal("f1", payload="3"))
    await commit(log, Commit("f1", lease, (event(1), event(2)), consumed=((read.id, 2),)))
    await settle(log, "f1", lease, TaskStatus.PENDING)

    (again,) = await claim(log)

    assert (again.lease.worker, again.lease.claims) == ("w1", 2)
    assert again.events == [event(1), event(2)]
    assert again.inbox == await log.inbox("f1")
    assert [message.payload for message in again.inbox] == ["2", "3"]


async def test_a_claim_of_several_flows_gives_each_its_own_history_and_messages(log: ExecutionLog) -> None:
    await register(log)
    for n in range(6):
        lease = await claimed_flow(log, f"f{n}")
        events = tuple(event(seq, f"{n}") for seq in range(1, n + 1))
        await commit(log, Commit(f"f{n}", lease, events))
        for _ in range(5 - n):
            await log.send(signal(f"f{n}", payload=f"{n}"))
        await settle(log, f"f{n}", lease, TaskStatus.PENDING)

    claimed = {one.flow.id: one for one in await claim(log)}

    for n in range(6):
        one = claimed[f"f{n}"]
        assert [e.payload for e in one.events] == [f"{n}"] * n
        assert [message.payload for message in one.inbox] == [f"{n}"] * (5 - n)


async def test_new_flows_come_as_the_log_has_them_beside_one_with_a_past(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "old", await claimed_flow(log, "old"), TaskStatus.PENDING)
    for name in ("new-1", "new-2"):
        await log.create(new_flow(name, priority=1))

    for claimed in (await claim(log, limit=2), await claim(log)):
        for one in claimed:
            assert one.flow == await record(log, one.flow.id)
            assert one.lease == Lease("w1", one.flow.epoch)
            assert one.events == await log.history(one.flow.id)


async def test_a_claim_tells_up_to_which_message_nothing_is_missing(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", "first"))
    (first,) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), ((first.id, 1),)))
    await settle(log, "f1", lease, TaskStatus.PENDING)

    (again,) = await claim(log)

    assert again.inbox == []
    assert again.inbox_seen >= first.id


async def test_a_flow_that_sleeps_on_what_its_claim_brought_is_not_woken_by_it(log: ExecutionLog) -> None:
    """Up to `inbox_seen` nothing is missing, so nothing of it can be news."""
    await register(log)
    await log.create(new_flow("f1"))
    await log.send(signal("f1"))
    claimed = await claim_one(log, "f1")

    await settle(log, "f1", claimed.lease, TaskStatus.SUSPENDED, inbox_seen=claimed.inbox[-1].id)

    assert await status_of(log, "f1") is TaskStatus.SUSPENDED


async def test_a_flow_that_is_not_ready_is_claimed_by_nobody(log: ExecutionLog) -> None:
    await register(log)
    for id, status in [
        ("asleep", TaskStatus.SUSPENDED),
        ("parked", TaskStatus.PARKED),
        ("completed", TaskStatus.COMPLETED),
        ("failed", TaskStatus.FAILED),
        ("cancelled", TaskStatus.CANCELLED),
    ]:
        await settle(log, id, await claimed_flow(log, id), status)
    await log.create(new_flow("paused"))
    await log.move("paused", TaskStatus.PAUSED)
    await claimed_flow(log, "running")

    assert await claim(log) == []
    for id in ("asleep", "parked", "completed", "failed", "cancelled", "paused", "running", "absent"):
        assert await claim(log, flow_id=id) == []


async def test_many_claimers_never_get_the_same_flow(log: ExecutionLog) -> None:
    for n in range(5):
        await register(log, f"w{n}")
    await asyncio.gather(*(log.create(new_flow(f"f{n}")) for n in range(200)))

    claims = await asyncio.gather(*(claim(log, f"w{n % 5}", limit=7) for n in range(40)))

    claimed = [flow for one in claims for flow in ids(one)]
    assert len(claimed) == len(set(claimed)) == 200


async def test_a_claim_nobody_waits_for_any_more_gives_its_flows_back(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1"))
    task = asyncio.create_task(claim(log))
    await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    (claimed,) = await until(lambda: claim(log))
    assert claimed.flow.claims_stalled == 0


async def test_a_flow_is_claimed_once_more_only_after_it_was_let_go(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    lease = await claimed_flow(log)

    assert await claim(log, "w2", flow_id="f1") == []
    assert await claim(log, flow_id="f1") == []
    await settle(log, "f1", lease, TaskStatus.PENDING)
    assert (await claim_one(log, "f1", "w2")).lease.claims == 2


async def test_the_first_claim_starts_the_clock_of_a_flow_and_later_ones_leave_it(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", timeout_seconds=60.0))
    assert (await record(log, "f1")).deadline_at is None

    first = await claim_one(log, "f1")
    await settle(log, "f1", first.lease, TaskStatus.PENDING)
    again = await claim_one(log, "f1")

    assert first.flow.started_at is not None
    assert first.flow.deadline_at is not None
    assert abs(first.flow.deadline_at - first.flow.started_at - 60) < 1e-3
    assert again.flow.started_at == first.flow.started_at
    assert again.flow.deadline_at == first.flow.deadline_at


async def test_a_worker_brings_the_timeout_of_flows_that_were_given_none(log: ExecutionLog) -> None:
    await register(log)
    for flow in (
        new_flow("none"),
        new_flow("own", timeout_seconds=5.0),
        new_flow("other", name="else"),
    ):
        await log.create(flow)

    claimed = await claim(log, names=("order", "else"), timeouts={"order": 90.0})

    limits = {
        one.flow.id: one.flow.deadline_at - one.flow.started_at
        for one in claimed
        if one.flow.deadline_at is not None and one.flow.started_at is not None
    }
    assert {id: round(seconds, 3) for id, seconds in limits.items()} == {"none": 90.0, "own": 5.0}


async def test_a_timeout_that_came_with_the_first_claim_stays_with_the_flow(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1"))
    (first,) = await claim(log, timeouts={"order": 90.0})
    await settle(log, "f1", first.lease, TaskStatus.PENDING)

    (again,) = await claim(log, timeouts={"order": 5.0})

    assert again.flow.deadline_at == first.flow.deadline_at


async def test_a_flow_that_has_started_gets_no_timeout_from_a_later_worker(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), TaskStatus.PENDING)

    (again,) = await claim(log, timeouts={"order": 5.0})

    assert again.flow.deadline_at is None
