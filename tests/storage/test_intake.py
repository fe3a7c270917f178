"""Conformance: what anyone may write."""

from __future__ import annotations

import asyncio
import json

import pytest

from ergon import Scheduler
from ergon.core.commit import Commit, Hint, Lease
from ergon.core.status import TaskStatus
from ergon.errors import FlowNotFound, IllegalMove, LeaseLost
from tests.storage.kit import (
    cancel,
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    new_flow,
    register,
    settle,
    signal,
    status_of,
    until,
)


async def test_creating_a_flow_twice_changes_nothing_and_returns_what_is_there(log):
    assert await log.create(new_flow("f1", input='{"a":1}')) is None

    found = await log.create(new_flow("f1", name="other", input='{"b":2}'))

    assert (found.name, found.input, found.status) == ("order", '{"a":1}', TaskStatus.PENDING)


async def test_of_many_who_create_one_id_at_once_exactly_one_does(log):
    answers = await asyncio.gather(*(log.create(new_flow("f1", input=str(n))) for n in range(50)))

    assert answers.count(None) == 1
    assert len({one.input for one in answers if one is not None}) == 1


async def test_a_flow_created_with_an_owner_is_running_and_owned(log):
    await register(log)

    await log.create(new_flow("f1", owner=Lease("w1", 1), timeout_seconds=60.0))

    flow = await log.find("f1")
    assert (flow.status, flow.owner, flow.epoch) == (TaskStatus.RUNNING, "w1", 1)
    assert flow.started_at == log.now()
    assert flow.deadline_at == log.now() + 60
    await commit(log, Commit("f1", Lease("w1", 1), (event(1),)))


async def test_a_worker_that_is_not_alive_cannot_create_flows_for_itself(log):
    with pytest.raises(LeaseLost):
        await log.create(new_flow("f1", owner=Lease("nobody", 1)))

    assert await log.find("f1") is None


async def test_a_signal_wakes_a_sleeping_flow(log):
    await register(log)
    lease = await claimed_flow(log)
    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=log.now() + 1_000)

    await log.send(signal("f1", payload='"yes"'))

    claimed = await claim_one(log, "f1")
    assert [m.payload for m in claimed.inbox] == ['"yes"']


async def test_a_signal_does_not_wake_a_flow_that_a_person_holds_back(log):
    await log.create(new_flow("f1"))
    await log.move("f1", TaskStatus.PAUSED)

    await log.send(signal("f1"))

    assert await status_of(log, "f1") is TaskStatus.PAUSED


async def test_a_message_with_a_key_is_kept_once_however_often_it_is_sent(log):
    await log.create(new_flow("f1"))

    await asyncio.gather(*(log.send(signal("f1", payload=str(n), key="k")) for n in range(20)))
    await log.send(signal("f1", key="other"))
    await log.send(signal("f1", name="else", key="k"))

    assert len(await log.inbox("f1")) == 3


async def test_messages_without_a_key_are_all_kept_in_order(log):
    await log.create(new_flow("f1"))

    for n in range(10):
        await log.send(signal("f1", payload=str(n)))

    received = await log.inbox("f1")
    assert [m.payload for m in received] == [str(n) for n in range(10)]
    assert [m.id for m in received] == sorted(m.id for m in received)


async def test_a_repeated_key_stays_consumed(log):
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", key="k"))
    (message,) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), consumed=((message.id, 1),)))

    await log.send(signal("f1", key="k"))

    assert await log.inbox("f1") == []


async def test_sending_to_no_flow_or_to_one_that_has_ended_is_refused(log):
    await register(log)
    lease = await claimed_flow(log)
    await log.send(signal("f1", key="early"))
    await settle(log, "f1", lease)

    with pytest.raises(FlowNotFound):
        await log.send(signal("nobody"))
    with pytest.raises(IllegalMove):
        await log.send(signal("f1"))
    await log.send(signal("f1", key="early"))


async def test_one_refused_message_does_not_keep_the_others_of_its_batch(log):
    await log.create(new_flow("f1"))

    answers = await asyncio.gather(
        log.send(signal("f1")), log.send(signal("nobody")), log.send(signal("f1")), return_exceptions=True
    )

    assert [type(one) for one in answers] == [type(None), FlowNotFound, type(None)]
    assert len(await log.inbox("f1")) == 2


async def test_cancelling_a_flow_that_never_started_ends_it(log):
    await log.create(new_flow("f1", delay_seconds=60.0))

    await log.send(cancel("f1"))
    await log.send(cancel("f1"))

    assert await status_of(log, "f1") is TaskStatus.CANCELLED


@pytest.mark.parametrize(
    "status", [TaskStatus.SUSPENDED, TaskStatus.PAUSED, TaskStatus.PARKED, TaskStatus.PENDING]
)
async def test_cancelling_a_started_flow_lets_its_code_clean_up(log, status):
    await register(log)
    lease = await claimed_flow(log)
    if status is TaskStatus.PAUSED:
        await log.move("f1", TaskStatus.PAUSED)
    else:
        wake_at = log.now() + 99 if status in (TaskStatus.SUSPENDED, TaskStatus.PENDING) else None
        await settle(log, "f1", lease, status, wake_at=wake_at)

    await log.send(cancel("f1"))

    claimed = await claim_one(log, "f1")
    assert [m.kind for m in claimed.inbox] == ["cancel"]


async def test_a_cancelled_child_that_never_started_tells_its_parent(log):
    await register(log)
    parent = await claimed_flow(log, "p")
    await commit(log, Commit("p", parent, children=(new_flow("c", parent_id="p", parent_op="0:1"),)))

    await log.send(cancel("c"))

    (told,) = await log.inbox("p")
    which = {"flow_id": "c", "name": "order", "input": {}}
    why = "cancelled before it started"
    assert json.loads(told.payload or "") == {**which, "status": "cancelled", "output": None, "reason": why}


async def test_pausing_takes_the_flow_from_its_owner_at_once(log):
    await register(log)
    lease = await claimed_flow(log)

    moved = await log.move("f1", TaskStatus.PAUSED, reason="waiting for legal")

    assert (moved.status, moved.owner, moved.reason) == (TaskStatus.PAUSED, None, "waiting for legal")
    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", lease, (event(1),)))
    assert await claim(log) == []
    assert (await log.move("f1", TaskStatus.PENDING)).claims_stalled == 0
    assert len(await claim(log)) == 1


async def test_killing_a_flow_ends_it_tells_its_parent_and_cancels_its_children(log):
    await register(log)
    parent = await claimed_flow(log, "p")
    await commit(log, Commit("p", parent, children=(new_flow("f", parent_id="p", parent_op="0:1"),)))
    flow = await claim_one(log, "f")
    await commit(log, Commit("f", flow.lease, children=(new_flow("c", parent_id="f", parent_op="0:1"),)))

    moved = await log.move("f", TaskStatus.CANCELLED, reason="operator", output='"killed"')

    assert (moved.status, moved.output) == (TaskStatus.CANCELLED, '"killed"')
    assert [m.kind for m in await log.inbox("p")] == ["child"]
    assert await status_of(log, "c") is TaskStatus.CANCELLED


async def test_a_failed_flow_can_be_retried_and_a_completed_one_cannot(log):
    await register(log)
    failed, completed = await claimed_flow(log, "failed"), await claimed_flow(log, "completed")
    await commit(log, Commit("failed", failed, (event(1),)))
    await settle(log, "failed", failed, TaskStatus.FAILED, output='"boom"')
    await settle(log, "completed", completed, output="1")

    moved = await log.move("failed", TaskStatus.PENDING)

    assert (moved.status, moved.output, moved.ended_at) == (TaskStatus.PENDING, None, None)
    retried = (await log.history("failed"))[-1]
    assert (retried.seq, retried.kind, retried.payload, retried.attempt) == (2, "flow_retried", '"boom"', 1)
    for target in (TaskStatus.PENDING, TaskStatus.PAUSED, TaskStatus.CANCELLED):
        with pytest.raises(IllegalMove):
            await log.move("completed", target)
    with pytest.raises(IllegalMove):
        await log.move("failed", TaskStatus.COMPLETED)
    with pytest.raises(FlowNotFound):
        await log.move("nobody", TaskStatus.PAUSED)


@pytest.mark.parametrize("status", [TaskStatus.RUNNING, TaskStatus.SUSPENDED, TaskStatus.PENDING])
async def test_nobody_can_resume_or_retry_a_flow_that_is_not_held_back_and_its_owner_keeps_it(log, status):
    await register(log)
    lease = await claimed_flow(log)
    if status is not TaskStatus.RUNNING:
        await settle(log, "f1", lease, status, wake_at=log.now() + 99)

    with pytest.raises(IllegalMove, match=status.value):
        await log.move("f1", TaskStatus.PENDING)

    assert await status_of(log, "f1") is status
    if status is TaskStatus.RUNNING:
        await commit(log, Commit("f1", lease, (event(1),)))


async def test_resume_is_for_paused_flows_and_retry_for_failed_ones(log):
    await register(log)
    await log.create(new_flow("paused"))
    await log.move("paused", TaskStatus.PAUSED)
    running = await claimed_flow(log, "running")
    await settle(log, "failed", await claimed_flow(log, "failed"), TaskStatus.FAILED, output='"boom"')
    scheduler = Scheduler(log)

    with pytest.raises(IllegalMove, match=r"is failed; only a paused or parked .* `retry`"):
        await scheduler.handle("failed").resume()
    with pytest.raises(IllegalMove, match=r"is paused; only a failed .* `resume`"):
        await scheduler.handle("paused").retry()
    for act in (scheduler.handle("running").resume, scheduler.handle("running").retry):
        with pytest.raises(IllegalMove, match="is running"):
            await act()
    await commit(log, Commit("running", running, (event(1),)))

    await scheduler.handle("failed").retry()
    await scheduler.handle("paused").resume()
    assert [await status_of(log, id) for id in ("failed", "paused")] == [TaskStatus.PENDING] * 2


async def test_a_flow_paused_before_its_start_time_still_starts_at_that_time(log, clock):
    await register(log)
    await log.create(new_flow("f1", delay_seconds=3600.0))
    starts_at = (await log.find("f1")).wake_at
    await log.move("f1", TaskStatus.PAUSED)
    clock.advance(60)

    resumed = await log.move("f1", TaskStatus.PENDING)

    assert (resumed.status, resumed.wake_at) == (TaskStatus.PENDING, starts_at)
    assert await claim(log) == []
    clock.advance(3600)
    assert len(await claim(log)) == 1


async def test_a_flow_whose_start_time_passed_while_it_was_paused_starts_when_resumed(log, clock):
    await register(log)
    await log.create(new_flow("f1", delay_seconds=60.0))
    await log.move("f1", TaskStatus.PAUSED)
    clock.advance(61)
    assert await claim(log) == []

    await log.move("f1", TaskStatus.PENDING)

    assert len(await claim(log)) == 1


async def test_a_flow_that_has_not_started_can_be_given_another_start_time(log, clock):
    await register(log)
    await log.create(new_flow("sooner", delay_seconds=1_000))
    await log.create(new_flow("later"))
    heard: list[Hint] = []
    log.subscribe(heard.append)

    sooner = await log.reschedule("sooner", delay_seconds=10)
    later = await log.reschedule("later", at=log.now() + 20)

    assert (sooner.wake_at, later.wake_at) == (log.now() + 10, log.now() + 20)
    await until(lambda: log.now() + 10 in [hint.wake_at for hint in heard])
    assert await claim(log) == []
    clock.advance(10)
    assert [one.flow.id for one in await claim(log)] == ["sooner"]
    await log.reschedule("later")
    await until(lambda: any(hint.ready for hint in heard))
    assert [one.flow.id for one in await claim(log)] == ["later"]


async def test_a_flow_that_has_started_or_ended_keeps_its_time(log):
    await register(log)
    await claimed_flow(log, "f1")
    with pytest.raises(IllegalMove, match="has started"):
        await log.reschedule("f1", delay_seconds=10)
    with pytest.raises(FlowNotFound):
        await log.reschedule("nobody")
    await log.create(new_flow("f2"))
    await log.move("f2", TaskStatus.CANCELLED)
    with pytest.raises(IllegalMove):
        await log.reschedule("f2", delay_seconds=10)


async def test_deleting_removes_an_ended_flow_with_all_that_belongs_to_it(log):
    await register(log)
    parent = await claimed_flow(log, "p")
    await commit(
        log, Commit("p", parent, (event(1),), children=(new_flow("c", parent_id="p", parent_op="0:1"),))
    )
    await log.send(signal("p"))
    with pytest.raises(IllegalMove):
        await log.delete("p")
    await settle(log, "p", parent)

    assert await log.delete("p") is True

    assert [await log.find(id) for id in ("p", "c")] == [None, None]
    assert await log.history("p") == []
    assert await log.inbox("p") == []
    assert await log.delete("p") is False


async def test_a_flow_whose_child_still_cleans_up_is_not_deleted_yet(log):
    await register(log)
    parent = await claimed_flow(log, "p")
    await commit(log, Commit("p", parent, children=(new_flow("c", parent_id="p", parent_op="0:1"),)))
    child = await claim_one(log, "c")
    await settle(log, "p", parent)

    with pytest.raises(IllegalMove, match="child c is running"):
        await log.delete("p")

    await settle(log, "c", child.lease, TaskStatus.CANCELLED)
    assert await log.delete("p") is True
