"""What most batches hold is one statement; what is unusual in one is found out, and each is answered for itself."""

from __future__ import annotations

import asyncio

import pytest

from ergon import PostgresExecutionLog
from ergon.core.commit import Commit, MessageKind, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.testing.conformance.kit import (
    child,
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    new_flow,
    parent_of,
    register,
    settle,
    status_of,
)
from tests.storage.postgres.conftest import acts

DONE = Settled(TaskStatus.COMPLETED, "1")


async def test_a_new_flow_and_the_end_of_one_take_one_way_to_the_server_each(log, line):
    await register(log)
    await log.create(new_flow("f0"))  # the driver asks what the types are, once for each connection
    before = len(line.saw)
    assert await log.create(new_flow("f1")) is None
    assert len(acts(line, before)) == 1, acts(line, before)
    lease = (await claim_one(log, "f1")).lease
    before = len(line.saw)

    await commit(log, Commit("f1", lease, settled=DONE))

    assert len(acts(line, before)) == 1, acts(line, before)
    flow = await log.find("f1")
    assert (flow.status, flow.output, flow.owner) == (TaskStatus.COMPLETED, "1", None)


async def test_what_cannot_travel_in_one_statement_goes_the_longer_way(log, line):
    await register(log)
    leases = [await claimed_flow(log, f"f{n}") for n in range(4)]
    before = len(line.saw)

    creating = [asyncio.create_task(log.create(new_flow(f"n{n}"))) for n in range(2)]
    await asyncio.sleep(0)
    told = await commit_all(
        log,
        Commit("f0", leases[0], (event(1),)),
        Commit("f1", leases[1], (event(1), event(2))),
        Commit("f2", leases[2], settled=DONE),
        Commit("f3", leases[3], settled=Settled(TaskStatus.PARKED, reason="why\x1f")),
    )

    assert told == [None] * 4
    assert await asyncio.gather(*creating) == [None, None]
    # A reason holds what stands between texts: all of it went the longer way.
    assert sum("BEGIN" in sql for sql in acts(line, before)) == 1
    assert await log.history("f1") == [event(1), event(2)]
    assert [await status_of(log, f"f{n}") for n in range(4)] == [
        TaskStatus.RUNNING, TaskStatus.RUNNING, TaskStatus.COMPLETED, TaskStatus.PARKED,
    ]  # fmt: skip
    assert (await log.find("f3")).reason == "why\x1f"


async def test_a_mixed_batch_is_one_statement(log, line):
    await register(log)
    leases = [await claimed_flow(log, f"f{n}") for n in range(2)]
    before = len(line.saw)

    creating = asyncio.create_task(log.create(new_flow("n")))
    await asyncio.sleep(0)
    told = await commit_all(log, Commit("f0", leases[0], (event(1),)), Commit("f1", leases[1], settled=DONE))

    assert told == [None, None]
    assert await creating is None
    assert len(acts(line, before)) == 1, acts(line, before)


async def test_in_a_batch_with_something_unusual_each_is_answered_as_if_it_were_alone(log):
    await register(log)
    leases = {name: await claimed_flow(log, name) for name in ("end", "lost", "step", "parent")}
    await log.move("lost", TaskStatus.PAUSED)
    await commit(log, Commit("parent", leases["parent"], children=(child("c", parent_id="parent"),)))

    creating = [asyncio.create_task(log.create(new_flow(name))) for name in ("end", "fresh")]
    await asyncio.sleep(0)
    told = await commit_all(
        log,
        Commit("end", leases["end"], settled=DONE),
        Commit("lost", leases["lost"], settled=DONE),
        Commit("step", leases["step"], (event(1),)),
        Commit("parent", leases["parent"], settled=DONE),
    )

    assert [type(error) for error in told] == [type(None), LeaseLost, type(None), type(None)]
    existing, fresh = await asyncio.gather(*creating)
    assert existing is not None
    assert existing.id == "end"
    assert fresh is None
    assert await log.history("step") == [event(1)]
    assert await status_of(log, "lost") is TaskStatus.PAUSED
    assert await status_of(log, "c") is TaskStatus.CANCELLED, "it never started, and its parent has ended"


async def test_a_parent_hears_of_an_end_however_many_usual_things_come_beside_it(log):
    await register(log)
    parent = await parent_of(log, child("c", parent_id="p"), id="p")
    kid = (await claim_one(log, "c")).lease
    others = [await claimed_flow(log, f"f{n}") for n in range(3)]

    told = await commit_all(
        log,
        *(Commit(f"f{n}", lease, settled=DONE) for n, lease in enumerate(others)),
        Commit("c", kid, settled=DONE),
        Commit("p", parent, (event(1),)),
    )

    assert told == [None] * 5
    assert [message.kind for message in await log.inbox("p")] == [MessageKind.CHILD]


@pytest.mark.parametrize("status", [TaskStatus.PAUSED, TaskStatus.CANCELLED])
async def test_an_end_lands_before_its_flow_is_taken_away_or_not_at_all(own_url, status):
    async with (
        PostgresExecutionLog(own_url, require="D1") as one,
        PostgresExecutionLog(own_url, require="D1") as other,
    ):
        await register(one)
        for n in range(20):
            lease = await claimed_flow(one, f"f{n}")
            answers = await asyncio.gather(
                settle(one, f"f{n}", lease), other.move(f"f{n}", status), return_exceptions=True
            )

            failed = [isinstance(answer, BaseException) for answer in answers]
            assert failed.count(True) == 1, answers
            assert await status_of(one, f"f{n}") is (TaskStatus.COMPLETED if failed[1] else status)
