"""New flows: one for each id, as it was asked for."""

from __future__ import annotations

import asyncio

import pytest

from ergon.core.commit import ClaimedFlow, Commit, FlowFilter, Lease
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    is_near,
    new_flow,
    record,
    register,
    settle,
)


async def test_a_new_flow_is_kept_as_it_was_given(log: ExecutionLog) -> None:
    await log.create(
        new_flow(
            "f1",
            name="report",
            input='{"n":1}',
            queue="slow",
            version="v2",
            priority=-7,
            timeout_seconds=60.0,
            parent_id="somebody",
            parent_op="0:1",
            close_with_parent=False,
            tags=("gpu",),
        )
    )

    flow = await record(log, "f1")
    assert (flow.id, flow.name, flow.input, flow.queue, flow.version) == (
        "f1",
        "report",
        '{"n":1}',
        "slow",
        "v2",
    )
    assert (flow.priority, flow.parent_id, flow.parent_op) == (-7, "somebody", "0:1")
    assert (flow.close_with_parent, flow.tags) == (False, ("gpu",))
    assert is_near(flow.created_at, log.now())


async def test_flows_created_together_are_each_answered_as_if_they_came_alone(log: ExecutionLog) -> None:
    await log.create(new_flow("f2", input='{"n":2}'))

    answers = await log.create_all([new_flow(f"f{n}", input=f'{{"n":{n + 5}}}') for n in range(5)])

    assert [found and found.input for found in answers] == [None, None, '{"n":2}', None, None]
    kept = [(await record(log, f"f{n}")).input for n in range(5)]
    assert kept == ['{"n":5}', '{"n":6}', '{"n":2}', '{"n":8}', '{"n":9}']


async def test_of_flows_created_together_with_one_id_there_is_one(log: ExecutionLog) -> None:
    answers = await log.create_all([new_flow("f1", input=f'{{"n":{n}}}') for n in range(3)])

    assert sorted(found is None for found in answers) == [False, False, True]
    kept = (await record(log, "f1")).input
    assert {found.input for found in answers if found is not None} == {kept}


async def test_no_flows_are_created_together(log: ExecutionLog) -> None:
    assert await log.create_all([]) == []


async def test_a_thousand_flows_created_together_are_all_there(log: ExecutionLog) -> None:
    assert await log.create_all([new_flow(f"f{n}") for n in range(1_000)]) == [None] * 1_000

    assert sum((await log.count(FlowFilter())).values()) == 1_000


async def test_a_log_is_not_new_once_a_flow_was_created(log: ExecutionLog) -> None:
    await log.create(new_flow())

    assert not log.is_new


async def test_a_log_is_not_new_once_flows_were_created_together(log: ExecutionLog) -> None:
    await log.create_all([new_flow("f1"), new_flow("f2")])

    assert not log.is_new


async def test_a_log_is_not_new_once_somebody_looked_for_flows_in_it(log: ExecutionLog) -> None:
    await register(log)
    assert await claim(log) == []

    assert not log.is_new


async def test_a_new_flow_is_pending_and_nobodys(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    flow = await record(log, "f1")
    assert (flow.status, flow.owner, flow.claims, flow.claims_stalled) == (TaskStatus.PENDING, None, 0, 0)
    assert (flow.output, flow.reason, flow.started_at, flow.ended_at) == (None, "", None, None)
    assert (flow.wake_at, flow.deadline_at, flow.parent_id, flow.tags) == (None, None, None, ())
    assert flow.version is None


async def test_an_empty_version_differs_from_none(log: ExecutionLog) -> None:
    await log.create(new_flow("empty", version=""))
    await log.create(new_flow("none"))

    assert [(await record(log, id)).version for id in ("empty", "none")] == ["", None]


async def test_creating_a_flow_twice_changes_nothing_and_returns_what_is_there(log: ExecutionLog) -> None:
    assert await log.create(new_flow("f1", input='{"a":1}')) is None
    before = await record(log, "f1")

    found = await log.create(new_flow("f1", name="other", input='{"b":2}', queue="else", tags=("x",)))

    assert found == before
    assert await record(log, "f1") == before


async def test_creating_a_flow_that_has_gone_on_returns_it_as_it_is(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), output="1")

    found = await log.create(new_flow("f1"))

    assert found is not None
    assert found == await record(log, "f1")
    assert found.status is TaskStatus.COMPLETED


async def test_of_many_who_create_one_id_at_once_exactly_one_does(log: ExecutionLog) -> None:
    answers = await asyncio.gather(*(log.create(new_flow("f1", input=str(n))) for n in range(50)))

    assert answers.count(None) == 1
    assert {one.input for one in answers if one is not None} == {(await record(log, "f1")).input}


async def test_one_id_that_exists_keeps_no_other_of_its_batch_from_being_created(log: ExecutionLog) -> None:
    await log.create(new_flow("f3"))

    answers = await asyncio.gather(*(log.create(new_flow(f"f{n}")) for n in range(6)))

    assert [one is None for one in answers] == [True, True, True, False, True, True]
    assert [(await record(log, f"f{n}")).id for n in range(6)] == [f"f{n}" for n in range(6)]


async def test_a_flow_created_with_an_owner_is_running_and_owned(log: ExecutionLog) -> None:
    await register(log)

    await log.create(new_flow("f1", owner="w1", timeout_seconds=60.0))

    flow = await record(log, "f1")
    assert (flow.status, flow.owner, flow.claims) == (TaskStatus.RUNNING, "w1", 1)
    assert is_near(flow.started_at, log.now())
    assert flow.deadline_at is not None
    assert flow.started_at is not None
    assert abs(flow.deadline_at - flow.started_at - 60) < 1e-3
    assert await claim(log) == []
    await commit(log, Commit("f1", Lease("w1", flow.epoch), (event(1),)))


async def test_a_flow_created_with_an_owner_starts_at_once_whatever_its_start_time(log: ExecutionLog) -> None:
    await register(log)

    await log.create(new_flow("f1", owner="w1", delay_seconds=3600.0))

    flow = await record(log, "f1")
    assert (flow.status, flow.wake_at) == (TaskStatus.RUNNING, None)


async def test_a_flow_created_with_an_owner_that_exists_is_not_taken_from_anybody(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    lease = await claimed_flow(log)

    found = await log.create(new_flow("f1", owner="w2"))

    assert found is not None
    assert found.owner == "w1"
    await commit(log, Commit("f1", lease, (event(1),)))


async def test_a_flow_created_with_an_owner_goes_back_when_its_owner_retires(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    await log.create(new_flow("f1", owner="w1"))

    assert await log.retire("w1") == 1

    assert (await claim_one(log, "f1", "w2")).lease.claims == 2


async def test_a_flow_created_for_its_owner_comes_as_a_claim_would_bring_it(log: ExecutionLog) -> None:
    await register(log)
    new = new_flow(
        "f1",
        name="report",
        input='{"n":1}',
        queue="slow",
        version="v2",
        priority=-7,
        timeout_seconds=60.0,
        parent_id="somebody",
        parent_op="0:1",
        close_with_parent=False,
        owner="w1",
        tags=("tpu", "gpu", "gpu"),
    )

    (brought,) = await log.create_claimed([new])

    kept = await record(log, "f1")
    assert isinstance(brought, ClaimedFlow)
    assert brought == ClaimedFlow(kept, Lease("w1", kept.epoch), [], [])
    assert (kept.owner, kept.status, kept.tags) == ("w1", TaskStatus.RUNNING, ("gpu", "tpu"))
    await commit(log, Commit("f1", brought.lease, (event(1),)))


async def test_of_flows_created_for_owners_each_is_answered_as_if_it_came_alone(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    await log.create(new_flow("there", input='{"n":7}'))
    owners = {"one": "w1", "there": "w1", "nobodys": None, "two": "w2"}

    answers = await log.create_claimed([new_flow(id, owner=owner) for id, owner in owners.items()])

    one, there, nobodys, two = answers
    assert isinstance(one, ClaimedFlow)
    assert isinstance(two, ClaimedFlow)
    assert (one.flow, two.flow) == (await record(log, "one"), await record(log, "two"))
    assert (one.lease.worker, two.lease.worker) == ("w1", "w2")
    assert there == await record(log, "there")
    assert nobodys is None
    assert (await record(log, "nobodys")).status is TaskStatus.PENDING


async def test_no_flow_is_created_for_an_owner_that_is_not_alive(log: ExecutionLog) -> None:
    await register(log)
    await log.retire("w1")

    with pytest.raises(LeaseLost):
        await log.create_claimed([new_flow("f1", owner="w1")])

    assert await log.find("f1") is None


async def test_a_thousand_flows_are_created_for_one_owner(log: ExecutionLog) -> None:
    await register(log)

    answers = await log.create_claimed([new_flow(f"f{n}", owner="w1") for n in range(1_000)])

    leases = {answer.flow.id: answer.lease for answer in answers if isinstance(answer, ClaimedFlow)}
    assert len(leases) == 1_000
    await commit(log, Commit("f999", leases["f999"], (event(1),)))
    assert await claim(log) == []


async def test_ids_that_differ_only_in_case_or_form_are_two_flows(log: ExecutionLog) -> None:
    names = ["flow", "Flow", "FLOW", "flöw", "flo\u0308w", "flow ", "flow\u200b"]
    for id in names:
        assert await log.create(new_flow(id)) is None

    assert [(await record(log, id)).id for id in names] == names


async def test_two_flows_created_one_after_the_other_are_never_dated_the_other_way_round(
    log: ExecutionLog,
) -> None:
    for n in range(20):
        await log.create(new_flow(f"f{n}"))

    dates = [(await record(log, f"f{n}")).created_at for n in range(20)]

    assert dates == sorted(dates)
