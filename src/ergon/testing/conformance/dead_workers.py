"""Whoever is not alive starts nothing, claims nothing and says nothing; and only the last claim of a flow writes."""

from __future__ import annotations

import pytest

from ergon.core.commit import ChildCancel, Commit, Lease, NewFlow
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    child,
    claim,
    claim_one,
    claimed_flow,
    commit_all,
    event,
    kill_worker,
    new_flow,
    parent_of,
    record,
    register,
    status_of,
)


async def test_a_worker_that_is_not_alive_creates_no_flow_for_itself(log: ExecutionLog) -> None:
    for worker in ("dead", "retired"):
        await register(log, worker)
    await kill_worker(log, "dead")
    await log.retire("retired")

    for worker in ("dead", "retired", "never-there"):
        with pytest.raises(LeaseLost):
            await log.create(new_flow("f1", owner=worker))

    assert await log.find("f1") is None


async def test_a_worker_that_is_not_alive_claims_nothing(log: ExecutionLog) -> None:
    for worker in ("dead", "retired"):
        await register(log, worker)
    await kill_worker(log, "dead")
    await log.retire("retired")
    await log.create(new_flow("f1"))

    for worker in ("dead", "retired", "never-there"):
        with pytest.raises(LeaseLost):
            await claim(log, worker)
        with pytest.raises(LeaseLost):
            await claim(log, worker, flow_id="f1")

    assert await status_of(log, "f1") is TaskStatus.PENDING


async def test_a_worker_that_is_not_alive_renews_nothing(log: ExecutionLog) -> None:
    for worker in ("dead", "retired"):
        await register(log, worker)
    await kill_worker(log, "dead")
    await log.retire("retired")

    for worker in ("dead", "retired", "never-there"):
        with pytest.raises(LeaseLost):
            await log.renew(worker, lease_seconds=30.0)


async def test_a_worker_that_was_declared_dead_cannot_come_back_under_its_id(log: ExecutionLog) -> None:
    await register(log)
    await kill_worker(log, "w1")

    with pytest.raises(LeaseLost):
        await register(log)

    assert [worker.state for worker in await log.workers()] == ["dead"]


async def test_a_worker_says_nothing_of_flows_that_are_not_its_own(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    await claimed_flow(log, "theirs", "w2")
    await log.create(new_flow("nobodys"))

    await log.renew("w1", lease_seconds=30.0, doing={"theirs": "lies", "nobodys": "lies", "absent": "lies"})

    assert [(await record(log, id)).reason for id in ("theirs", "nobodys")] == ["", ""]


async def test_each_claim_gives_a_higher_epoch_and_only_the_last_one_writes(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    leases = []
    for n in range(4):
        await register(log, f"w{n}")
        leases.append((await claim_one(log, "f1", f"w{n}")).lease)
        if n < 3:
            await kill_worker(log, f"w{n}")

    errors = await commit_all(
        log, *(Commit("f1", lease, (event(1, str(n)),)) for n, lease in enumerate(leases))
    )

    assert [type(error) for error in errors] == [LeaseLost] * 3 + [type(None)]
    assert [lease.claims for lease in leases] == [1, 2, 3, 4]
    assert await log.history("f1") == [event(1, "3")]


async def test_a_child_of_a_lost_parent_is_neither_started_nor_told(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    stale = Lease("w1", lease.epoch + 1)
    late: list[NewFlow] = [child("d", "0:4"), child("e", "0:5")]

    errors = await commit_all(
        log,
        Commit("p", stale, children=(late[0],)),
        Commit("p", stale, (event(1),), children=(late[1],)),
        Commit("p", stale, cancels=(ChildCancel(None, "0:3", '"enough"'),)),
    )

    assert [type(error) for error in errors] == [LeaseLost] * 3
    assert [await log.find(one.id) for one in late] == [None, None]
    assert await status_of(log, "c") is TaskStatus.PENDING
