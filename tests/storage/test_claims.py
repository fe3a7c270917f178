"""Conformance: who gets which flow."""

from __future__ import annotations

import asyncio

import pytest

from ergon.core.commit import Commit, Lease, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from tests.storage.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    new_flow,
    register,
    settle,
    signal,
    until,
)


def ids(claimed):
    return [one.flow.id for one in claimed]


async def test_flows_are_claimed_by_priority_and_then_by_how_long_they_are_ready(log, clock):
    await register(log)
    for id, priority in [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)]:
        await log.create(new_flow(id, priority=priority))
        clock.advance(1)

    assert ids(await claim(log, limit=3)) == ["b", "d", "a"]
    assert ids(await claim(log)) == ["c", "e"]
    assert await claim(log) == []


async def test_priority_holds_across_queues_names_and_versions(log):
    await register(log)
    for n, (queue, name, version) in enumerate(
        [("q1", "a", None), ("q2", "b", "v1"), ("q1", "b", "v2"), ("q2", "a", "v1")]
    ):
        await log.create(new_flow(f"f{n}", queue=queue, name=name, version=version, priority=n))

    claimed = await claim(log, names=("a", "b"), queues=("q1", "q2"), limit=3)

    assert ids(claimed) == ["f3", "f2", "f1"]


@pytest.mark.parametrize(
    "versions, expected",
    [
        (None, {"none", "v1", "v2"}),
        (("v1",), {"none", "v1"}),
        (("v1", "v2"), {"none", "v1", "v2"}),
        ((), {"none"}),
    ],
)
async def test_a_flow_goes_only_to_a_worker_that_runs_its_version(log, versions, expected):
    await register(log)
    for id, version in [("none", None), ("v1", "v1"), ("v2", "v2")]:
        await log.create(new_flow(id, version=version))

    assert set(ids(await claim(log, versions=versions))) == expected


async def test_flows_nobody_here_can_run_stay_untouched(log):
    await register(log)
    await log.create(new_flow("other-name", name="ghost"))
    await log.create(new_flow("other-queue", queue="gpu"))
    await log.create(new_flow("mine"))

    assert ids(await claim(log)) == ["mine"]
    assert (await log.find("other-name")).epoch == 0
    assert (await log.find("other-queue")).status is TaskStatus.PENDING


async def test_a_claim_brings_history_and_unread_messages_and_starts_the_clock(log, clock):
    await register(log)
    await log.create(new_flow("f1", timeout_seconds=60.0))
    first = await claim_one(log, "f1")
    started = log.now()
    await log.send(signal("f1", payload="1"))
    (read,) = await log.inbox("f1")
    await log.send(signal("f1", payload="2"))
    await commit(
        log,
        Commit(
            "f1",
            first.lease,
            (event(1), event(2)),
            consumed=((read.id, 2),),
            settled=Settled(TaskStatus.PENDING),
        ),
    )
    clock.advance(10)

    (again,) = await claim(log)

    assert again.lease.epoch == 2
    assert again.events == [event(1), event(2)]
    assert [m.payload for m in again.inbox] == ["2"]
    assert (again.flow.started_at, again.flow.deadline_at) == (started, started + 60)
    assert again.flow.owner == "w1"


async def test_new_flows_come_as_the_log_has_them_beside_one_with_a_past(log):
    await register(log)
    await claimed_flow(log, "old")
    await settle(log, "old", Lease("w1", 1), TaskStatus.PENDING)
    for name in ("new-1", "new-2"):
        await log.create(new_flow(name, priority=1))

    for claimed in (await claim(log, limit=2), await claim(log)):
        for one in claimed:
            assert one.flow == await log.find(one.flow.id)
            assert one.lease == Lease("w1", one.flow.epoch)
            assert one.events == await log.history(one.flow.id)


async def test_many_claimers_never_get_the_same_flow(log):
    for n in range(5):
        await register(log, f"w{n}")
    await asyncio.gather(*(log.create(new_flow(f"f{n}")) for n in range(200)))

    claims = await asyncio.gather(*(claim(log, f"w{n % 5}", limit=7) for n in range(40)))

    taken = [flow for one in claims for flow in ids(one)]
    assert len(taken) == len(set(taken)) == 200


async def test_a_flow_is_not_claimable_before_its_start_and_is_after(log, clock):
    await register(log)
    await log.create(new_flow("at", start_at=log.now() + 10))
    await log.create(new_flow("delayed", delay_seconds=20.0))

    assert await log.next_wake(["order"]) == log.now() + 10
    assert await claim(log) == []
    clock.advance(10)
    assert ids(await claim(log)) == ["at"]
    assert await claim(log, flow_id="delayed") == []
    clock.advance(10)
    assert ids(await claim(log, flow_id="delayed")) == ["delayed"]
    assert await log.next_wake(["order"]) is None


async def test_a_sleeping_flow_wakes_when_it_is_due_never_before(log, clock):
    await register(log)
    lease = await claimed_flow(log)
    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=log.now() + 5)

    clock.advance(4.999)
    assert await claim(log) == []
    assert await log.next_wake(["order", "else"]) is not None
    assert await log.next_wake(["else"]) is None
    clock.advance(0.001)
    assert ids(await claim(log)) == ["f1"]


async def test_more_flows_than_one_look_promotes_all_wake_in_the_end(log, clock):
    await register(log)
    await asyncio.gather(*(log.create(new_flow(f"f{n}", delay_seconds=1.0)) for n in range(2_500)))
    clock.advance(1)

    taken: list[str] = []
    while (wake := await log.next_wake(["order"])) is not None or len(taken) < 2_500:
        assert wake is None or wake <= log.now()
        taken += ids(await claim(log, limit=1_000))

    assert len(set(taken)) == 2_500


async def test_a_flow_is_claimed_by_id_whatever_its_queue_and_version(log):
    await register(log)
    await log.create(new_flow("f1", queue="gpu", version="v9"))

    assert ids(await claim(log, flow_id="f1", versions=("v1",))) == ["f1"]
    assert await claim(log, flow_id="f1") == []


async def test_a_worker_that_was_never_registered_claims_nothing(log):
    await log.create(new_flow("f1"))

    with pytest.raises(LeaseLost):
        await claim(log, "nobody")

    assert (await log.find("f1")).status is TaskStatus.PENDING


async def test_a_flow_that_kills_its_workers_is_parked_with_the_reason(log, clock):
    await log.create(new_flow("f1"))
    for n in range(3):
        await register(log, f"w{n}")
        (claimed,) = await claim(log, f"w{n}", claims_stalled_max=3)
        assert claimed.flow.claims_stalled == n
        clock.advance(60)
        await log.reap()
    await register(log, "w9")

    assert await claim(log, "w9", claims_stalled_max=3) == []

    flow = await log.find("f1")
    assert flow.status is TaskStatus.PARKED
    assert "3 times" in flow.reason
    await log.move("f1", TaskStatus.PENDING)
    assert (await claim_one(log, "f1", "w9")).flow.claims_stalled == 0


async def test_progress_and_giving_back_willingly_reset_the_count_of_stalled_claims(log, clock):
    await log.create(new_flow("f1"))

    async def die(worker, *, progress):
        await register(log, worker)
        (claimed,) = await claim(log, worker)
        if progress:
            await commit(log, Commit("f1", claimed.lease, (event(len(claimed.events) + 1),)))
        clock.advance(60)
        await log.reap()
        return claimed.flow.claims_stalled

    assert await die("w0", progress=False) == 0
    assert await die("w1", progress=False) == 1
    assert await die("w2", progress=True) == 2
    assert await die("w3", progress=False) == 0
    assert await die("w4", progress=False) == 1
    await register(log, "w5")
    (claimed,) = await claim(log, "w5")
    assert claimed.flow.claims_stalled == 2
    await settle(log, "f1", claimed.lease, TaskStatus.PENDING)
    assert (await claim_one(log, "f1", "w5")).flow.claims_stalled == 0


async def test_a_claim_nobody_waits_for_any_more_gives_its_flows_back(log):
    await register(log)
    await log.create(new_flow("f1"))
    task = asyncio.create_task(claim(log))
    await asyncio.sleep(0)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    (claimed,) = await until(lambda: claim(log))
    assert claimed.flow.claims_stalled == 0


async def test_a_claim_tells_up_to_which_message_nothing_is_missing(log):
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", "first"))
    (first,) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), ((first.id, 1),)))
    await settle(log, "f1", lease, TaskStatus.PENDING)

    (again,) = await claim(log)

    assert again.inbox == []
    assert again.inbox_seen >= first.id


VERSIONS = ("1.1", "1.2", "1.10", "2.0", "blue", None)


@pytest.mark.parametrize(
    "wanted, expected",
    [
        ((">=1.2,<2",), {"1.2", "1.10", None}),
        (("blue", ">=2"), {"2.0", "blue", None}),
        (("1.1", "1.1"), {"1.1", None}),
        ((">1.2,!=1.10",), {"2.0", None}),
        ((">=3",), {None}),
        (("*",), set(VERSIONS)),
        ((), {None}),
        (None, set(VERSIONS)),
    ],
)
async def test_a_worker_claims_the_versions_in_its_names_and_ranges(log, wanted, expected):
    """By number: 1.10 comes after 1.2."""
    await register(log)
    for version in VERSIONS:
        await log.create(new_flow(f"f{version}", version=version))
    await log.create(new_flow("later", version="1.5", start_at=log.now() + 60))
    await log.create(new_flow("elsewhere", version="1.3", queue="other"))

    claimed = await claim(log, versions=wanted)

    assert {one.flow.version for one in claimed} == expected
