"""An ended flow leaves with all that belongs to it, and nothing else does."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit, FlowFilter, IdTaken
from ergon.core.status import TaskStatus
from ergon.errors import FlowNotFound, IllegalMove
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    child,
    claim_one,
    claimed_flow,
    commit,
    event,
    finish,
    new_flow,
    parent_of,
    record,
    register,
    settle,
    signal,
    status_of,
    taken,
)


async def test_an_ended_flow_is_deleted_with_its_history_and_inbox(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))
    await log.send(signal("f1", key="k"))
    await settle(log, "f1", lease)

    assert await log.delete("f1") is True

    assert await log.find("f1") is None
    assert await log.history("f1") == []
    assert await log.inbox("f1") == []
    assert not await log.has_key(signal("f1", key="k"))
    assert await log.list(FlowFilter()) == ([], None)
    assert await log.count(FlowFilter()) == {}


async def test_deleting_what_is_not_there_is_false(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    await log.move("f1", TaskStatus.CANCELLED)

    assert await log.delete("f1") is True
    assert await log.delete("f1") is False
    assert await log.delete("nobody") is False


@pytest.mark.parametrize(
    "status",
    [TaskStatus.PENDING, TaskStatus.RUNNING, TaskStatus.SUSPENDED, TaskStatus.PAUSED, TaskStatus.PARKED],
)
async def test_a_flow_that_has_not_ended_is_not_deleted(log: ExecutionLog, status: TaskStatus) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))
    if status is TaskStatus.PAUSED:
        await log.move("f1", TaskStatus.PAUSED)
    elif status is not TaskStatus.RUNNING:
        await settle(log, "f1", lease, status)

    with pytest.raises(IllegalMove):
        await log.delete("f1")

    assert await status_of(log, "f1") is status
    assert await log.history("f1") == [event(1)]


async def test_the_ended_children_of_a_flow_leave_with_it(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child("c", "0:1"), child("d", "0:2", close_with_parent=False))
    grand = await claim_one(log, "c")
    await commit(
        log, Commit("c", grand.lease, (event(1),), children=(new_flow("g", parent_id="c", parent_op="0:1"),))
    )
    await finish(log, "g")
    await settle(log, "c", grand.lease)
    await finish(log, "d")
    await settle(log, "p", lease)

    assert await log.delete("p") is True

    assert [await log.find(id) for id in ("p", "c", "d", "g")] == [None] * 4
    assert await log.history("c") == []


async def test_a_flow_whose_child_still_cleans_up_is_not_deleted_yet(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    running = await claim_one(log, "c")
    await settle(log, "p", lease)

    with pytest.raises(IllegalMove, match="c"):
        await log.delete("p")
    assert [await status_of(log, id) for id in ("p", "c")] == [TaskStatus.COMPLETED, TaskStatus.RUNNING]

    await settle(log, "c", running.lease, TaskStatus.CANCELLED)
    assert await log.delete("p") is True


async def test_a_detached_child_that_has_not_ended_stays_and_has_no_parent_any_more(
    log: ExecutionLog,
) -> None:
    await register(log)
    lease = await parent_of(log, child(close_with_parent=False))
    await settle(log, "p", lease)

    await log.delete("p")

    left = await record(log, "c")
    assert (left.status, left.parent_id, left.parent_op) == (TaskStatus.PENDING, None, None)
    assert (await log.list(FlowFilter(parent_id="p")))[0] == []


async def test_a_child_that_outlives_its_deleted_parent_belongs_to_no_flow_with_that_id(
    log: ExecutionLog,
) -> None:
    await register(log)
    lease = await parent_of(log, child(close_with_parent=False))
    await settle(log, "p", lease)
    await log.delete("p")
    again = await claimed_flow(log, "p")

    await finish(log, "c")
    await commit(log, Commit("p", again, children=(child(),)))

    (told,) = await log.inbox("p")
    assert taken(told) == IdTaken("c", "order", None)


async def test_a_deleted_id_is_free_and_nothing_of_the_earlier_flow_comes_back(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, timeout_seconds=9.0, tags=("x",))
    await log.send(signal("f1", key="k"))
    await commit(log, Commit("f1", lease, (event(1),)))
    await settle(log, "f1", lease, TaskStatus.FAILED, output='"boom"')
    await log.delete("f1")

    assert await log.create(new_flow("f1")) is None

    claimed = await claim_one(log, "f1")
    assert (claimed.events, claimed.inbox, claimed.flow.output) == ([], [], None)
    assert (claimed.flow.deadline_at, claimed.flow.tags) == (None, ())
    await log.send(signal("f1", key="k"))
    assert len(await log.inbox("f1")) == 1


async def test_deleting_touches_no_flow_with_a_like_id(log: ExecutionLog) -> None:
    await register(log)
    for id in ("f1", "f10", "F1", "f1:x", "f1*"):
        lease = await claimed_flow(log, id)
        await commit(log, Commit(id, lease, (event(1),)))
        await log.send(signal(id))
        await settle(log, id, lease)

    await log.delete("f1")

    for id in ("f10", "F1", "f1:x", "f1*"):
        assert await log.history(id) == [event(1)]
        assert len(await log.inbox(id)) == 1


async def test_a_deleted_flow_takes_no_messages_and_no_acts(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    await log.move("f1", TaskStatus.CANCELLED)
    await log.delete("f1")

    for act in (
        log.send(signal("f1")),
        log.move("f1", TaskStatus.PAUSED),
        log.reschedule("f1"),
        log.retry_now("f1"),
    ):
        with pytest.raises(FlowNotFound):
            await act


async def test_a_child_can_be_deleted_without_its_parent(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child())
    await finish(log, "c", output="1")

    assert await log.delete("c") is True

    assert len(await log.inbox("p")) == 1
    assert await status_of(log, "p") is TaskStatus.RUNNING


async def test_an_open_wait_for_a_time_leaves_with_its_flow(log: ExecutionLog) -> None:
    await log.create(new_flow("f1", delay_seconds=60.0))
    await log.move("f1", TaskStatus.CANCELLED)

    await log.delete("f1")

    assert await log.next_wake(["order"]) is None
