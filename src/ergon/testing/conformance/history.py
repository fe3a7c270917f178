"""What owners wrote comes back as it was, in order; and a commit that comes twice is one."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit, Settled
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.errors import IllegalMove, LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    is_near,
    record,
    register,
    settle,
)

several = pytest.mark.parametrize("count", [1, 100])


async def test_events_come_back_as_they_were_written_in_order(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    events = [event(n, at=1_800_000_000 + n * 0.1) for n in range(1, 8)]

    await commit(log, Commit("f1", lease, tuple(events[:3])))
    await commit(log, Commit("f1", lease, tuple(events[3:])))

    assert await log.history("f1") == events


async def test_a_history_can_be_read_from_an_event_on(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    events = [event(n) for n in range(1, 8)]
    await commit(log, Commit("f1", lease, tuple(events)))

    assert await log.history("f1", after=5) == events[5:]
    assert await log.history("f1", after=1, limit=2) == events[1:3]
    assert await log.history("f1", limit=3) == events[:3]
    assert await log.history("f1", after=7) == []
    assert await log.history("f1", limit=0) == []


async def test_every_field_of_an_event_is_kept(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    events = (
        Event(1, "step_failed", "0/2:13", "charge", "digest@0:1", None, 0.0, "", 0),
        Event(2, "signal_received", "", "", "", "null", 1.5, "a file.py:9", 7),
        Event(3, "made_up_later", "0:1/signal:go#2", "näme", "", '""', 1_800_000_000.25, "x" * 300, 2**31),
    )

    await commit(log, Commit("f1", lease, events))

    assert tuple(await log.history("f1")) == events


@pytest.mark.parametrize(
    "at", [0.1, 1.0, 1_795_227_998.7339137, 253_402_300_799.999, 4_102_444_800.0000005, 0.0]
)
async def test_the_time_of_an_event_is_kept_to_the_last_bit(log: ExecutionLog, at: float) -> None:
    """Flow time is the time of the last event: replay must see the very same number."""
    await register(log)
    lease = await claimed_flow(log)

    await commit(log, Commit("f1", lease, (event(1, at=at),)))
    await settle(log, "f1", lease, TaskStatus.PENDING)

    assert (await log.history("f1"))[0].at == at
    assert (await claim_one(log, "f1")).events[0].at == at


async def test_commits_submitted_one_after_the_other_land_in_that_order(log: ExecutionLog) -> None:
    await register(log)
    leases = {id: await claimed_flow(log, id) for id in ("f1", "f2")}

    errors = await commit_all(
        log, *(Commit(id, leases[id], (event(n, f'"{id}"'),)) for n in range(1, 101) for id in leases)
    )

    assert errors == [None] * 200
    for id in leases:
        assert await log.history(id) == [event(n, f'"{id}"') for n in range(1, 101)]


async def test_answers_come_in_the_order_of_submission(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    heard: list[int] = []
    for n in range(1, 101):
        log.submit(Commit("f1", lease, (event(n),)), lambda _, n=n: heard.append(n))  # type: ignore[misc]

    await commit(log, Commit("f1", lease, (event(101),)))

    assert heard == list(range(1, 101))


async def test_histories_of_several_flows_stay_apart(log: ExecutionLog) -> None:
    await register(log)
    names = ("f", "f1", "f1:events", "F1")
    leases = {id: await claimed_flow(log, id) for id in names}

    await commit_all(log, *(Commit(id, lease, (event(1, f'"{id}"'),)) for id, lease in leases.items()))

    for id in names:
        assert await log.history(id) == [event(1, f'"{id}"')]


@several
async def test_repeating_a_commit_that_landed_succeeds_and_changes_nothing(
    log: ExecutionLog, count: int
) -> None:
    """A lost reply is not a failure: the same commit may be submitted again, even after the lease is gone."""
    await register(log)
    lease = await claimed_flow(log)
    events = tuple(event(n) for n in range(1, count + 1))
    step = Commit("f1", lease, events)
    last = Commit("f1", lease, (event(count + 1),), settled=Settled(TaskStatus.COMPLETED, "1"))

    for value in (step, step, last, last, step):
        await commit(log, value)

    assert await log.history("f1") == [*events, event(count + 1)]
    assert (await record(log, "f1")).output == "1"


async def test_a_commit_with_the_same_numbers_but_other_events_is_refused(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))

    for other in (event(1, '"other"'), event(1, None), event(1, op="0:9"), event(1, at=1.0)):
        with pytest.raises(IllegalMove):
            await commit(log, Commit("f1", lease, (other,)))

    assert await log.history("f1") == [event(1)]


@several
async def test_a_commit_of_which_a_part_landed_before_is_refused(log: ExecutionLog, count: int) -> None:
    """Only the very same commit is a repetition."""
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))

    with pytest.raises(IllegalMove):
        await commit(log, Commit("f1", lease, tuple(event(n) for n in range(1, count + 2))))

    assert await log.history("f1") == [event(1)]


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED])
async def test_a_flow_that_ends_keeps_its_output_and_takes_no_more_commits(
    log: ExecutionLog, status: TaskStatus
) -> None:
    await register(log)
    lease = await claimed_flow(log)

    await settle(log, "f1", lease, status, output='{"x":1}', reason="why" if status == "cancelled" else "")

    flow = await record(log, "f1")
    assert (flow.status, flow.output, flow.owner, flow.wake_at) == (status, '{"x":1}', None, None)
    assert is_near(flow.ended_at, log.now())
    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", lease, (event(1),)))


async def test_an_outcome_never_changes_once_it_is_there(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await settle(log, "f1", lease, output="1")
    first = await record(log, "f1")

    for status in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.SUSPENDED, TaskStatus.PENDING):
        with pytest.raises(LeaseLost):
            await settle(log, "f1", lease, status, output="2")

    assert await record(log, "f1") == first


async def test_a_parked_flow_keeps_the_reason_and_has_no_owner(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    await settle(log, "f1", lease, TaskStatus.PARKED, reason="the code changed", wake_at=log.now() + 9)

    flow = await record(log, "f1")
    assert (flow.status, flow.owner, flow.reason) == (TaskStatus.PARKED, None, "the code changed")
    assert (flow.wake_at, flow.ended_at, flow.output) == (None, None, None)


async def test_a_flow_that_sleeps_says_what_it_waits_for_and_until_when(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    wake_at = log.now() + 1_000.125

    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=wake_at, reason='[{"kind":"timer"}]')

    flow = await record(log, "f1")
    assert (flow.status, flow.owner, flow.reason) == (TaskStatus.SUSPENDED, None, '[{"kind":"timer"}]')
    assert flow.wake_at is not None
    assert abs(flow.wake_at - wake_at) < 1e-5


async def test_a_flow_may_be_let_go_many_times_and_its_history_grows_on(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    for n in range(1, 6):
        await commit(log, Commit("f1", lease, (event(n),), settled=Settled(TaskStatus.PENDING)))
        claimed = await claim_one(log, "f1")
        assert [e.seq for e in claimed.events] == list(range(1, n + 1))
        lease = claimed.lease

    assert lease.claims == 6
