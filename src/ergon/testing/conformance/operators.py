"""What an operator does to a flow: pause, resume, kill, retry."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit
from ergon.core.status import TaskStatus
from ergon.errors import FlowNotFound, IllegalMove, LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    LONG_SECONDS,
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    finish,
    new_flow,
    record,
    register,
    settle,
    stamp,
    status_of,
    until,
)

PENDING, PAUSED, CANCELLED = TaskStatus.PENDING, TaskStatus.PAUSED, TaskStatus.CANCELLED


async def test_pausing_takes_the_flow_from_its_owner_at_once(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    moved = await log.move("f1", PAUSED, reason="waiting for legal")

    assert (moved.status, moved.owner, moved.reason) == (PAUSED, None, "waiting for legal")
    assert moved == await record(log, "f1")
    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", lease, (event(1),)))
    assert await claim(log) == []


async def test_a_resumed_flow_is_claimed_again(log: ExecutionLog) -> None:
    await register(log)
    await claimed_flow(log)
    await log.move("f1", PAUSED, reason="waiting for legal")

    moved = await log.move("f1", PENDING)

    assert (moved.status, moved.claims_stalled, moved.wake_at) == (PENDING, 0, None)
    assert (await claim_one(log, "f1")).lease.claims == 2


@pytest.mark.parametrize("status", [TaskStatus.SUSPENDED, PENDING])
async def test_a_flow_that_waits_can_be_paused_and_waits_no_more_by_time(
    log: ExecutionLog, status: TaskStatus
) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), status, wake_at=log.now() + LONG_SECONDS)

    moved = await log.move("f1", PAUSED)

    assert (moved.status, moved.wake_at) == (PAUSED, None)
    assert (await log.move("f1", PENDING)).wake_at is None
    assert len(await claim(log)) == 1


async def test_pausing_what_is_paused_changes_nothing(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    first = await log.move("f1", PAUSED, reason="first")

    assert await log.move("f1", PAUSED, reason="second") == first


async def test_a_parked_flow_is_resumed_with_its_history(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))
    await settle(log, "f1", lease, TaskStatus.PARKED, reason="the code changed")

    moved = await log.move("f1", PENDING)

    assert (moved.status, moved.reason) == (PENDING, "")
    assert (await claim_one(log, "f1")).events == [event(1)]


@pytest.mark.parametrize("status", [TaskStatus.RUNNING, TaskStatus.SUSPENDED, PENDING])
async def test_nobody_can_resume_or_retry_a_flow_that_is_not_held_back_and_its_owner_keeps_it(
    log: ExecutionLog, status: TaskStatus
) -> None:
    await register(log)
    lease = await claimed_flow(log)
    if status is not TaskStatus.RUNNING:
        await settle(log, "f1", lease, status, wake_at=log.now() + 99)

    with pytest.raises(IllegalMove) as refused:
        await log.move("f1", PENDING)

    assert refused.value.status == status
    assert await status_of(log, "f1") is status
    if status is TaskStatus.RUNNING:
        await commit(log, Commit("f1", lease, (event(1),)))


@pytest.mark.parametrize("target", [PENDING, PAUSED, CANCELLED])
async def test_a_completed_flow_stays_as_it_is(log: ExecutionLog, target: TaskStatus) -> None:
    await register(log)
    await claimed_flow(log)
    await log.move("f1", PAUSED)
    await log.move("f1", PENDING)
    await finish(log, "f1", output="1")
    before = await record(log, "f1")

    with pytest.raises(IllegalMove) as refused:
        await log.move("f1", target)

    assert refused.value.status == "completed"
    assert await record(log, "f1") == before


@pytest.mark.parametrize("status", [TaskStatus.FAILED, CANCELLED, TaskStatus.PARKED])
async def test_what_does_not_run_or_wait_cannot_be_paused(log: ExecutionLog, status: TaskStatus) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), status)

    with pytest.raises(IllegalMove):
        await log.move("f1", PAUSED)

    assert await status_of(log, "f1") is status


async def test_a_cancelled_flow_is_neither_resumed_nor_retried(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    await log.move("f1", CANCELLED)

    with pytest.raises(IllegalMove):
        await log.move("f1", PENDING)


@pytest.mark.parametrize(
    "target",
    [TaskStatus.RUNNING, TaskStatus.SUSPENDED, TaskStatus.PARKED, TaskStatus.COMPLETED, TaskStatus.FAILED],
)
async def test_no_person_makes_a_flow_what_only_its_code_can_make_it(
    log: ExecutionLog, target: TaskStatus
) -> None:
    await log.create(new_flow("f1"))

    with pytest.raises(IllegalMove):
        await log.move("f1", target)

    assert await status_of(log, "f1") is PENDING


async def test_acting_on_a_flow_that_is_not_there_says_so(log: ExecutionLog) -> None:
    for target in (PENDING, PAUSED, CANCELLED):
        with pytest.raises(FlowNotFound):
            await log.move("nobody", target)

    assert await log.find("nobody") is None


async def test_whoever_means_to_resume_retries_nothing_that_failed_meanwhile(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "failed", await claimed_flow(log, "failed"), TaskStatus.FAILED, output='"boom"')

    with pytest.raises(IllegalMove) as refused:
        await log.move("failed", PENDING, only=(PAUSED, TaskStatus.PARKED))

    assert refused.value.status == "failed"
    assert await status_of(log, "failed") is TaskStatus.FAILED
    assert await log.history("failed") == []


async def test_whoever_means_to_retry_resumes_nothing_that_is_paused(log: ExecutionLog) -> None:
    await log.create(new_flow("paused"))
    await log.move("paused", PAUSED)

    with pytest.raises(IllegalMove) as refused:
        await log.move("paused", PENDING, only=(TaskStatus.FAILED,))

    assert refused.value.status == "paused"
    assert (await log.move("paused", PENDING, only=(PAUSED,))).status is PENDING


async def test_a_flow_paused_before_its_start_time_still_starts_at_that_time(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", delay_seconds=LONG_SECONDS))
    starts_at = (await record(log, "f1")).wake_at
    assert (await log.move("f1", PAUSED)).wake_at is None

    resumed = await log.move("f1", PENDING)

    assert (resumed.status, resumed.wake_at) == (PENDING, starts_at)
    assert await claim(log) == []
    assert await log.next_wake(["order"]) == starts_at


async def test_a_flow_whose_start_time_passed_while_it_was_paused_starts_when_resumed(
    log: ExecutionLog,
) -> None:
    await register(log)
    await log.create(new_flow("f1", delay_seconds=0.02))
    due = (await record(log, "f1")).wake_at or 0.0
    await log.move("f1", PAUSED)

    async def has_passed() -> bool:
        return await stamp(log) > due

    await until(has_passed)
    assert await claim(log) == []

    await log.move("f1", PENDING)

    assert len(await claim(log)) == 1


async def test_an_owner_hears_which_of_its_flows_were_taken_away(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    names = ("mine", "paused", "killed", "elsewhere", "mine again", 'a "quoted" name', "gone", "given back")
    leases = {id: await claimed_flow(log, id) for id in names}
    for id in ("paused", "elsewhere", "mine again", 'a "quoted" name'):
        await log.move(id, PAUSED)
    for id in ("killed", "gone"):
        await log.move(id, CANCELLED)
    await log.delete("gone")
    for id, worker in (("elsewhere", "w2"), ("mine again", "w1")):
        await log.move(id, PENDING)
        await claim_one(log, id, worker)
    await settle(log, "given back", leases["given back"], PENDING)

    assert dict(await log.lost("w1", [(id, lease.epoch) for id, lease in leases.items()])) == {
        "paused": "paused",
        "killed": "cancelled",
        "elsewhere": "running",
        "mine again": "running",
        'a "quoted" name': "paused",
        "gone": None,
        "given back": "pending",
    }
    assert list(await log.lost("w1", [])) == []
