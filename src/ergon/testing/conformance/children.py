"""Children as their parents' commits start them, and what the parent hears when an id is taken."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit, IdTaken, Lease, NewFlow, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    child,
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    finish,
    new_flow,
    parent_of,
    record,
    register,
    status_of,
    stop,
    taken,
)


async def test_starting_a_child_again_changes_nothing(log: ExecutionLog) -> None:
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
async def test_a_stranger_with_a_childs_id_is_left_alone_and_the_parent_is_told(
    log: ExecutionLog, stranger: NewFlow
) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")
    await log.create(stranger)
    before = await log.find("c")

    await commit(log, Commit("p", lease, (event(1),), children=(child(), child("d", "0:4"))))

    assert await log.find("c") == before
    assert len(await log.history("p")) == 1
    assert (await record(log, "d")).parent_id == "p"
    (told,) = await log.inbox("p")
    assert told.name == "0:3"
    assert taken(told) == IdTaken("c", stranger.name, None)


@pytest.mark.parametrize("change", [{"name": "report"}, {"input": '{"other":1}'}], ids=["name", "input"])
async def test_a_child_of_one_operation_with_another_name_or_input_is_told_as_it_is(
    log: ExecutionLog, change: dict[str, str]
) -> None:
    """Whether two texts are the same input, only the code that wrote them can say."""
    await register(log)
    lease = await parent_of(log, child())

    await commit(log, Commit("p", lease, children=(child(**change),)))

    (told,) = await log.inbox("p")
    assert taken(told) == IdTaken("c", "order", "{}")


async def test_of_two_flows_that_start_one_id_at_once_one_gets_it_and_the_other_is_told(
    log: ExecutionLog,
) -> None:
    await register(log)
    leases = {id: await claimed_flow(log, id) for id in ("p", "q")}

    errors = await commit_all(
        log,
        *(Commit(id, lease, (event(1),), children=(child(parent_id=id),)) for id, lease in leases.items()),
    )

    assert errors == [None, None]
    assert (await record(log, "c")).parent_id == "p"
    assert await log.inbox("p") == []
    assert [taken(told) for told in await log.inbox("q")] == [IdTaken("c", "order", None)]


async def test_of_two_operations_of_one_commit_with_one_id_the_first_gets_it(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")

    await commit(log, Commit("p", lease, children=(child(), child(op="0:4"))))

    assert (await record(log, "c")).parent_op == "0:3"
    assert [told.name for told in await log.inbox("p")] == ["0:4"]


async def test_a_commit_submitted_again_tells_once_that_an_id_is_taken(log: ExecutionLog) -> None:
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


async def test_a_parent_that_asks_again_after_it_was_claimed_again_is_told_again(log: ExecutionLog) -> None:
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


async def test_a_parent_that_goes_to_sleep_with_a_taken_id_is_woken(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")
    await log.create(new_flow("c"))

    await commit(log, Commit("p", lease, children=(child(),), settled=Settled(TaskStatus.SUSPENDED)))

    assert await status_of(log, "p") is TaskStatus.PENDING
    assert len(await log.inbox("p")) == 1


async def test_a_parent_that_ends_with_a_taken_id_ends(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")
    await log.create(new_flow("c"))

    await commit(log, Commit("p", lease, children=(child(),), settled=Settled(TaskStatus.COMPLETED, "1")))

    assert await status_of(log, "p") is TaskStatus.COMPLETED
    assert await log.inbox("p") == []
    assert await status_of(log, "c") is TaskStatus.PENDING


async def test_a_child_started_in_its_parents_last_commit_ends_with_it_unless_detached(
    log: ExecutionLog,
) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")
    children = (child(), child("d", "0:4", close_with_parent=False))

    await commit(log, Commit("p", lease, children=children, settled=Settled(TaskStatus.COMPLETED, "1")))

    assert await status_of(log, "c") is TaskStatus.CANCELLED
    assert await status_of(log, "d") is TaskStatus.PENDING


async def test_a_parent_whose_lease_is_lost_starts_no_child_and_cancels_none(log: ExecutionLog) -> None:
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


async def test_a_child_has_all_that_its_parent_gave_it(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")
    given = child(
        name="report",
        input='{"n":1}',
        queue="slow",
        version="v2",
        priority=7,
        timeout_seconds=60.0,
        close_with_parent=False,
        tags=("gpu",),
    )

    await commit(log, Commit("p", lease, children=(given,)))

    found = await record(log, "c")
    assert (found.name, found.input, found.queue, found.version) == ("report", '{"n":1}', "slow", "v2")
    assert (found.priority, found.close_with_parent, found.tags) == (7, False, ("gpu",))
    assert (found.parent_id, found.parent_op, found.status) == ("p", "0:3", TaskStatus.PENDING)


async def test_a_child_may_be_started_for_later(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")

    await commit(log, Commit("p", lease, children=(child(delay_seconds=3600.0),)))

    found = await record(log, "c")
    assert found.wake_at is not None
    assert abs(found.wake_at - found.created_at - 3600) < 1e-3


async def test_children_are_claimed_like_any_other_flow(log: ExecutionLog) -> None:
    await register(log)
    await parent_of(log, child("low", "0:1"), child("high", "0:2", priority=5))

    assert [(await claim_one(log, id)).flow.parent_id for id in ("low", "high")] == ["p", "p"]


async def test_a_detached_flow_of_a_parent_without_an_operation_is_no_child_to_tell_of(
    log: ExecutionLog,
) -> None:
    await register(log)
    lease = await claimed_flow(log, "p")
    await commit(log, Commit("p", lease, children=(child(op=None, close_with_parent=False),)))

    await finish(log, "c", output="1")

    assert await log.inbox("p") == []
