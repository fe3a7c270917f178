"""Which children a cancel reaches: those a parent's operation started, and those that close with it."""

from __future__ import annotations

import json

import pytest

from ergon.core.commit import ChildCancel, Commit, IdTaken
from ergon.core.status import TaskStatus
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
    stop,
    taken,
)


async def test_a_cancel_reaches_the_child_of_that_operation_once(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child(), child("unstarted", "0:4"))
    await claim_one(log, "c")

    for _ in range(2):
        await commit(log, Commit("p", lease, cancels=(stop(), stop("unstarted", "0:4"))))

    assert [(told.kind, told.payload) for told in await log.inbox("c")] == [("cancel", '"enough"')]
    assert await status_of(log, "c") is TaskStatus.RUNNING
    assert await status_of(log, "unstarted") is TaskStatus.CANCELLED


@pytest.mark.parametrize("heard", [False, True])
async def test_a_cancel_that_is_repeated_beside_a_new_one_wakes_no_child_that_is_held_back(
    log: ExecutionLog, *, heard: bool
) -> None:
    """A replay of the parent repeats what an earlier run asked; an operator may have paused the child meanwhile."""
    await register(log)
    lease = await parent_of(log, child(), child("other", "0:4"))
    held, other = await claim_one(log, "c"), await claim_one(log, "other")
    await commit(log, Commit("p", lease, cancels=(stop(),)))
    if heard:
        (told,) = await log.inbox("c")
        await commit(log, Commit("c", held.lease, (event(1),), ((told.id, 1),)))
    await log.move("c", TaskStatus.PAUSED)
    await settle(log, "other", other.lease, TaskStatus.SUSPENDED)

    await commit(log, Commit("p", lease, cancels=(stop(), stop("other", "0:4"))))

    assert await status_of(log, "c") is TaskStatus.PAUSED
    assert len(await log.inbox("c")) == (0 if heard else 1)
    assert await status_of(log, "other") is TaskStatus.PENDING


async def test_a_cancel_never_reaches_a_flow_that_only_has_the_id(log: ExecutionLog) -> None:
    """A parent may stop waiting before it knows that its child's id belongs to a stranger."""
    await register(log)
    lease = await claimed_flow(log, "p")
    for stranger in (
        new_flow("of-nobody"),
        child("of-another", parent_id="another"),
        child("of-another-operation", "0:9"),
    ):
        await log.create(stranger)
    await claimed_flow(log, "running", parent_id="another", parent_op="0:3")
    strangers = ("of-nobody", "of-another", "of-another-operation", "running")

    await commit(
        log,
        Commit("p", lease, (event(1),), cancels=(*map(stop, strangers), stop("p"), stop("nowhere"))),
    )

    for id in strangers:
        assert await log.inbox(id) == []
        assert await status_of(log, id) in (TaskStatus.PENDING, TaskStatus.RUNNING)
    assert await log.inbox("p") == []


async def test_a_cancel_of_a_step_reaches_the_children_of_its_body_but_for_detached_ones(
    log: ExecutionLog,
) -> None:
    """Whoever gives a step up does not know what its body started in another process."""
    await register(log)
    lease = await parent_of(
        log,
        child("a", "0:3/child:pay#1"),
        child("b", "0:3/child:pay#2"),
        child("detached", "0:3/child:pay#3", close_with_parent=False),
        child("of-the-flow", "0:3"),
        child("of-another-step", "0:30/child:pay#1"),
    )
    await log.create(child("of-another", "0:3/child:pay#1", parent_id="another"))
    await claim_one(log, "a")

    for _ in range(2):
        await commit(log, Commit("p", lease, cancels=(ChildCancel(None, "0:3", '"enough"'),)))

    assert [(told.kind, told.payload) for told in await log.inbox("a")] == [("cancel", '"enough"')]
    assert await status_of(log, "b") is TaskStatus.CANCELLED
    for id in ("detached", "of-the-flow", "of-another-step", "of-another"):
        assert await status_of(log, id) is TaskStatus.PENDING
        assert await log.inbox(id) == []


async def test_a_child_that_outlives_its_deleted_parent_has_none(log: ExecutionLog) -> None:
    """Another flow that gets the id of the deleted one is not its parent."""
    await register(log)
    lease = await parent_of(log, child(close_with_parent=False))
    await settle(log, "p", lease)
    await log.delete("p")
    again = await claimed_flow(log, "p")

    await settle(log, "c", (await claim_one(log, "c")).lease)
    await commit(log, Commit("p", again, children=(child(),)))

    (told,) = await log.inbox("p")
    assert taken(told) == IdTaken("c", "order", None)
    assert (await record(log, "c")).parent_id is None


async def test_a_cancel_for_a_child_that_has_ended_is_dropped(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    await settle(log, "c", (await claim_one(log, "c")).lease)

    await commit(log, Commit("p", lease, (event(1),), cancels=(stop(),)))

    assert len(await log.history("p")) == 1
    assert await log.inbox("c") == []


async def test_a_cancel_in_the_commit_that_wanted_another_flows_id_leaves_that_flow_alone(
    log: ExecutionLog,
) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")
    await log.create(new_flow("c"))

    await commit(log, Commit("p", lease, children=(child(),), cancels=(stop(),)))
    await log.send(signal("c"))

    assert await status_of(log, "c") is TaskStatus.PENDING
    assert [told.kind for told in await log.inbox("c")] == ["signal"]


async def test_children_that_close_with_their_parent_are_asked_to_stop_when_it_ends(
    log: ExecutionLog,
) -> None:
    await register(log)
    parent = await claimed_flow(log, "p")
    children = tuple(
        new_flow(id, parent_id="p", parent_op=op, close_with_parent=close)
        for id, op, close in [
            ("running", "0:1", True),
            ("unstarted", "0:2", True),
            ("detached", "0:3", False),
        ]
    )
    await commit(log, Commit("p", parent, children=children))
    await claim_one(log, "running")

    await settle(log, "p", parent)

    assert [m.kind for m in await log.inbox("running")] == ["cancel"]
    assert await status_of(log, "running") is TaskStatus.RUNNING
    assert await status_of(log, "unstarted") is TaskStatus.CANCELLED
    assert await status_of(log, "detached") is TaskStatus.PENDING
    assert await log.inbox("detached") == []


async def test_the_end_of_a_parent_is_carried_on_to_its_grandchildren(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    middle = (await claim_one(log, "c")).lease
    await commit(log, Commit("c", middle, children=(new_flow("g", parent_id="c", parent_op="0:1"),)))
    await settle(log, "c", middle, TaskStatus.FAILED, output='"boom"')

    assert await status_of(log, "g") is TaskStatus.CANCELLED
    assert (await record(log, "g")).reason == "its parent failed"
    await settle(log, "p", lease)


async def test_a_whole_family_that_never_started_ends_with_its_root(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child("c0", "0:1"))
    for n in range(4):
        await log.create(new_flow(f"c{n + 1}", parent_id=f"c{n}", parent_op="0:1"))

    await settle(log, "p", lease)

    assert [await status_of(log, f"c{n}") for n in range(5)] == [TaskStatus.CANCELLED] * 5


@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED])
async def test_children_are_told_how_their_parent_ended(log: ExecutionLog, status: TaskStatus) -> None:
    await register(log)
    lease = await parent_of(log, child("running", "0:1"), child("unstarted", "0:2"))
    await claim_one(log, "running")

    await settle(log, "p", lease, status, reason="enough" if status is TaskStatus.CANCELLED else "")

    (told,) = await log.inbox("running")
    assert (told.kind, told.name) == ("cancel", "parent_ended")
    why = "its parent was cancelled: enough" if status is TaskStatus.CANCELLED else f"its parent {status}"
    assert json.loads(told.payload or "") == why
    assert (await record(log, "unstarted")).reason == why


async def test_a_parent_that_is_killed_takes_its_children_along(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(
        log,
        child("running", "0:1"),
        child("unstarted", "0:2"),
        child("detached", "0:3", close_with_parent=False),
    )
    await claim_one(log, "running")

    await log.move("p", TaskStatus.CANCELLED)

    assert [message.kind for message in await log.inbox("running")] == ["cancel"]
    assert await status_of(log, "unstarted") is TaskStatus.CANCELLED
    assert await status_of(log, "detached") is TaskStatus.PENDING


async def test_a_sleeping_child_wakes_to_clean_up_when_its_parent_ends(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    await finish(log, "c", TaskStatus.SUSPENDED, wake_at=log.now() + 3600)

    await settle(log, "p", lease)

    assert await status_of(log, "c") is TaskStatus.PENDING
    assert [message.kind for message in (await claim_one(log, "c")).inbox] == ["cancel"]


async def test_a_child_whose_parent_stopped_waiting_hears_of_its_end_too(log: ExecutionLog) -> None:
    """Whether it has heard already that nobody waits is the flow's to decide."""
    await register(log)
    lease = await parent_of(log, child())
    await claim_one(log, "c")
    await commit(log, Commit("p", lease, cancels=(stop(),)))

    await settle(log, "p", lease)

    assert [(told.kind, told.name) for told in await log.inbox("c")] == [
        ("cancel", "parent"),
        ("cancel", "parent_ended"),
    ]


async def test_a_later_attempt_of_a_parent_may_stop_waiting_once_more(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    await claim_one(log, "c")

    for attempt in (1, 1, 2, 2):
        await commit(log, Commit("p", lease, cancels=(stop(attempt=attempt),)))

    assert len(await log.inbox("c")) == 2


async def test_a_cancel_wakes_the_child_it_is_for(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    await finish(log, "c", TaskStatus.SUSPENDED)

    await commit(log, Commit("p", lease, (event(1),), cancels=(stop(),)))

    assert await status_of(log, "c") is TaskStatus.PENDING


async def test_a_child_started_and_cancelled_in_one_commit_has_ended_and_is_told(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")

    await commit(log, Commit("p", lease, children=(child(),), cancels=(stop(),)))

    assert await status_of(log, "c") is TaskStatus.CANCELLED
    assert [(message.kind, message.name) for message in await log.inbox("p")] == [("child", "0:3")]


async def test_a_child_asked_for_again_and_cancelled_in_one_commit_is_told_once(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child(), child("d", "0:4"))

    await commit(
        log, Commit("p", lease, (event(1),), children=(child(), child("d", "0:4")), cancels=(stop(),))
    )

    assert [(message.kind, message.name) for message in await log.inbox("p")] == [("child", "0:3")]
