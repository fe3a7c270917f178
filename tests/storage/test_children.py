"""Children as their parents' commits start and cancel them, and what the parent hears when an id is taken."""

from __future__ import annotations

import json

import pytest

from ergon.core.commit import ChildCancel, Commit, IdTaken, Lease, NewFlow, Received, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.log import ExecutionLog
from tests.storage.kit import (
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    new_flow,
    register,
    settle,
    signal,
    status_of,
)


def child(id: str = "c", op: str = "0:3", **changes: object) -> NewFlow:
    return new_flow(id, **{"parent_id": "p", "parent_op": op, **changes})


def stop(id: str = "c", op: str = "0:3") -> ChildCancel:
    return ChildCancel(id, op, '"enough"')


async def parent_of(log: ExecutionLog, *children: NewFlow, id: str = "p") -> Lease:
    """A claimed flow that has started these children."""
    lease = await claimed_flow(log, id)
    if children:
        await commit(log, Commit(id, lease, children=children))
    return lease


def taken(message: Received) -> IdTaken:
    assert message.kind == "taken"
    return IdTaken.read(message.payload or "")


async def test_starting_a_child_again_changes_nothing(log):
    """A flow that starts again asks for the children it had."""
    await register(log)
    lease = await claimed_flow(log, "p")

    await commit(log, Commit("p", lease, (event(1),), children=(child(),)))
    first = await log.find("c")
    await commit(log, Commit("p", lease, (event(2),), children=(child(),)))
    await commit(log, Commit("p", lease, children=(child(),)))

    assert await log.find("c") == first
    assert len(await log.history("p")) == 2
    assert await log.inbox("p") == []


@pytest.mark.parametrize(
    "stranger",
    [
        new_flow("c"),
        child(parent_id="another"),
        child(op="0:9"),
        new_flow("c", name="report", input='{"secret":1}', parent_id="another", parent_op="0:3"),
    ],
    ids=["of nobody", "of another parent", "of another operation", "another flow"],
)
async def test_a_child_whose_id_a_stranger_has_leaves_the_stranger_alone_and_tells_the_parent(log, stranger):
    await register(log)
    lease = await claimed_flow(log, "p")
    await log.create(stranger)
    before = await log.find("c")

    await commit(log, Commit("p", lease, (event(1),), children=(child(), child("d", "0:4"))))

    assert await log.find("c") == before
    assert len(await log.history("p")) == 1
    assert (await log.find("d")).parent_id == "p"
    (told,) = await log.inbox("p")
    assert told.name == "0:3"
    assert taken(told) == IdTaken("c", stranger.name, None)


@pytest.mark.parametrize("change", [{"name": "report"}, {"input": '{"other":1}'}], ids=["name", "input"])
async def test_a_child_of_the_same_operation_with_another_name_or_input_is_told_as_it_is(log, change):
    """Whether two texts are the same input, only the code that wrote them can say."""
    await register(log)
    lease = await parent_of(log, child())

    await commit(log, Commit("p", lease, children=(child(**change),)))

    (told,) = await log.inbox("p")
    assert taken(told) == IdTaken("c", "order", "{}")


async def test_of_two_flows_that_start_one_id_at_once_one_gets_it_and_the_other_is_told(log):
    await register(log)
    leases = {id: await claimed_flow(log, id) for id in ("p", "q")}

    errors = await commit_all(
        log,
        *(Commit(id, lease, (event(1),), children=(child(parent_id=id),)) for id, lease in leases.items()),
    )

    assert errors == [None, None]
    assert (await log.find("c")).parent_id == "p"
    assert await log.inbox("p") == []
    assert [taken(told) for told in await log.inbox("q")] == [IdTaken("c", "order", None)]


async def test_of_two_operations_of_one_commit_with_one_id_the_first_gets_it(log):
    await register(log)
    lease = await claimed_flow(log, "p")

    await commit(log, Commit("p", lease, children=(child(), child(op="0:4"))))

    assert (await log.find("c")).parent_op == "0:3"
    assert [told.name for told in await log.inbox("p")] == ["0:4"]


async def test_a_commit_submitted_again_tells_once_that_an_id_is_taken(log):
    await register(log)
    lease = await claimed_flow(log, "p")
    await log.create(new_flow("c"))

    for value in (
        Commit("p", lease, children=(child(),)),
        Commit("p", lease, (event(1),), children=(child(),)),
    ):
        await commit(log, value)
        await commit(log, value)

    assert len(await log.inbox("p")) == 1


async def test_a_parent_that_asks_again_after_it_was_claimed_again_is_told_again(log):
    """Its first asking may have been taken from the inbox by an attempt that failed."""
    await register(log)
    lease = await claimed_flow(log, "p")
    await log.create(new_flow("c"))
    await commit(log, Commit("p", lease, children=(child(),)))
    (first,) = await log.inbox("p")
    await commit(log, Commit("p", lease, (event(1),), ((first.id, 1),), settled=Settled(TaskStatus.PENDING)))
    again = await claim_one(log, "p")

    await commit(log, Commit("p", again.lease, children=(child(),)))

    (second,) = await log.inbox("p")
    assert second.id > first.id


async def test_a_parent_that_goes_to_sleep_with_a_taken_id_is_woken(log):
    await register(log)
    lease = await claimed_flow(log, "p")
    await log.create(new_flow("c"))

    await commit(log, Commit("p", lease, children=(child(),), settled=Settled(TaskStatus.SUSPENDED)))

    assert await status_of(log, "p") is TaskStatus.PENDING
    assert len(await log.inbox("p")) == 1


async def test_a_parent_that_ends_with_a_taken_id_ends(log):
    await register(log)
    lease = await claimed_flow(log, "p")
    await log.create(new_flow("c"))

    await commit(log, Commit("p", lease, children=(child(),), settled=Settled(TaskStatus.COMPLETED, "1")))

    assert await status_of(log, "p") is TaskStatus.COMPLETED
    assert await log.inbox("p") == []
    assert await status_of(log, "c") is TaskStatus.PENDING


async def test_a_child_started_in_the_commit_that_ends_its_parent_ends_with_it_unless_it_is_detached(log):
    await register(log)
    lease = await claimed_flow(log, "p")
    children = (child(), child("d", "0:4", close_with_parent=False))

    await commit(log, Commit("p", lease, children=children, settled=Settled(TaskStatus.COMPLETED, "1")))

    assert await status_of(log, "c") is TaskStatus.CANCELLED
    assert await status_of(log, "d") is TaskStatus.PENDING


async def test_a_parent_whose_lease_is_lost_starts_no_child_and_cancels_none(log):
    await register(log)
    lease = await parent_of(log, child())
    stale = Lease("w1", lease.epoch + 1)

    for late in (
        Commit("p", stale, children=(child("d", "0:4"),)),
        Commit("p", stale, (event(1),), children=(child("d", "0:4"),)),
        Commit("p", stale, cancels=(stop(),)),
    ):
        with pytest.raises(LeaseLost):
            await commit(log, late)

    assert await log.find("d") is None
    assert await status_of(log, "c") is TaskStatus.PENDING


async def test_a_child_that_ended_is_told_again_to_a_parent_that_asks_again(log):
    """A later attempt of the parent asks for the same child, which has said all it had to say."""
    await register(log)
    lease = await parent_of(log, child())
    await settle(log, "c", (await claim_one(log, "c")).lease, TaskStatus.FAILED, output='{"type":"Boom"}')
    (first,) = await log.inbox("p")
    ask = Commit("p", lease, children=(child(),))

    await commit(log, ask)
    assert await log.inbox("p") == [first]
    await commit(log, Commit("p", lease, (event(1),), ((first.id, 1),)))
    await commit(log, ask)
    await commit(log, ask)

    (again,) = await log.inbox("p")
    assert (again.kind, again.name, again.payload) == (first.kind, first.name, first.payload)
    which = {"flow_id": "c", "name": "order", "input": {}}
    assert json.loads(again.payload or "") == {**which, "status": "failed", "output": {"type": "Boom"}}


async def test_a_parent_hears_of_each_end_of_a_child_that_is_tried_again(log):
    """It was told that the child failed, and may wait for it once more by now."""
    await register(log)
    await parent_of(log, child())
    await settle(log, "c", (await claim_one(log, "c")).lease, TaskStatus.FAILED, output='{"type":"Boom"}')
    await log.move("c", TaskStatus.PENDING)

    await settle(log, "c", (await claim_one(log, "c")).lease, output="1")

    told = [json.loads(message.payload or "")["status"] for message in await log.inbox("p")]
    assert told == ["failed", "completed"]


async def test_a_parent_hears_of_a_child_that_was_deleted_and_started_again(log):
    await register(log)
    lease = await parent_of(log, child())
    await settle(log, "c", (await claim_one(log, "c")).lease, output="1")
    await log.delete("c")
    await commit(log, Commit("p", lease, children=(child(),)))

    await settle(log, "c", (await claim_one(log, "c")).lease, output="2")

    assert [json.loads(message.payload or "")["output"] for message in await log.inbox("p")] == [1, 2]


async def test_a_child_that_ended_wakes_the_parent_that_asks_again_and_sleeps(log):
    await register(log)
    lease = await parent_of(log, child())
    await settle(log, "c", (await claim_one(log, "c")).lease, output="1")
    (first,) = await log.inbox("p")
    await commit(log, Commit("p", lease, (event(1),), ((first.id, 1),)))

    await commit(log, Commit("p", lease, children=(child(),), settled=Settled(TaskStatus.SUSPENDED)))

    assert await status_of(log, "p") is TaskStatus.PENDING
    assert len(await log.inbox("p")) == 1


async def test_a_cancel_reaches_the_child_of_that_operation_once(log):
    await register(log)
    lease = await parent_of(log, child(), child("unstarted", "0:4"))
    await claim_one(log, "c")

    for _ in range(2):
        await commit(log, Commit("p", lease, cancels=(stop(), stop("unstarted", "0:4"))))

    assert [(told.kind, told.payload) for told in await log.inbox("c")] == [("cancel", '"enough"')]
    assert await status_of(log, "c") is TaskStatus.RUNNING
    assert await status_of(log, "unstarted") is TaskStatus.CANCELLED


async def test_a_cancel_never_reaches_a_flow_that_only_has_the_id(log):
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


async def test_a_cancel_of_a_step_reaches_the_children_of_its_body_but_for_detached_ones(log):
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


async def test_a_child_that_outlives_its_deleted_parent_has_none(log):
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
    assert (await log.find("c")).parent_id is None


async def test_a_cancel_for_a_child_that_has_ended_is_dropped(log):
    await register(log)
    lease = await parent_of(log, child())
    await settle(log, "c", (await claim_one(log, "c")).lease)

    await commit(log, Commit("p", lease, (event(1),), cancels=(stop(),)))

    assert len(await log.history("p")) == 1
    assert await log.inbox("c") == []


async def test_a_child_cancelled_in_the_commit_that_wanted_another_flows_id_leaves_that_flow_alone(log):
    await register(log)
    lease = await claimed_flow(log, "p")
    await log.create(new_flow("c"))

    await commit(log, Commit("p", lease, children=(child(),), cancels=(stop(),)))
    await log.send(signal("c"))

    assert await status_of(log, "c") is TaskStatus.PENDING
    assert [told.kind for told in await log.inbox("c")] == ["signal"]
