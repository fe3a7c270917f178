"""A worker gives back what it owns: all of it when it ends, or what it does not know of."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    register,
    status_of,
)


async def test_retiring_gives_the_flows_back_and_ends_the_incarnation(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    lease = await claimed_flow(log)
    await claimed_flow(log, "f2")

    assert await log.retire("w1") == 2
    assert await log.retire("w1") == 0
    assert await log.retire("never there") == 0

    assert {one.id: one.state for one in await log.workers()} == {"w1": "stopped", "w2": "alive"}
    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", lease, settled=Settled(TaskStatus.COMPLETED)))
    assert len(await claim(log, "w2")) == 2


async def test_a_worker_that_retired_from_draining_has_stopped(log: ExecutionLog) -> None:
    await register(log)
    await log.note_draining("w1")

    await log.retire("w1")

    assert [worker.state for worker in await log.workers()] == ["stopped"]


async def test_what_a_worker_owns_and_does_not_know_of_goes_back(log: ExecutionLog) -> None:
    """The answer of a claim was lost: its flows have an owner who lives and runs none of them."""
    await register(log)
    known = await claimed_flow(log, "f1")
    await claimed_flow(log, "f2")

    assert list(await log.disown("w1", [("f1", known.epoch)])) == ["f2"]

    assert await status_of(log, "f1") is TaskStatus.RUNNING
    assert await status_of(log, "f2") is TaskStatus.PENDING
    assert list(await log.disown("w1", [("f1", known.epoch)])) == []


async def test_a_worker_that_knows_of_an_earlier_claim_does_not_know_of_the_last_one(
    log: ExecutionLog,
) -> None:
    await register(log)
    lease = await claimed_flow(log, "f1")

    assert list(await log.disown("w1", [("f1", lease.epoch - 1)])) == ["f1"]

    assert await status_of(log, "f1") is TaskStatus.PENDING


async def test_disowning_takes_nothing_from_another_worker(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    lease = await claimed_flow(log, "theirs", "w2")

    assert list(await log.disown("w1", [])) == []
    assert list(await log.disown("never there", [])) == []

    await commit(log, Commit("theirs", lease, (event(1),)))


async def test_what_was_disowned_can_be_claimed_again_at_once(log: ExecutionLog) -> None:
    await register(log)
    await claimed_flow(log, "f1")
    await log.disown("w1", [])

    assert (await claim_one(log, "f1")).lease.claims == 2
