"""Whoever lost a flow writes nothing to it: every kind of write, after every way of losing it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ergon.core.commit import ChildCancel, ClaimedFlow, Commit, Lease, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    child,
    claim_one,
    commit,
    event,
    kill_worker,
    new_flow,
    parent_of,
    record,
    register,
    settle,
    signal,
)

Write = Callable[[Lease, int], Commit]
"""A commit of flow `p` that would do something of one kind; given the lease and a message's id."""

WRITES: dict[str, Write] = {
    "events": lambda lease, _: Commit("p", lease, (event(3),)),
    "many events": lambda lease, _: Commit("p", lease, tuple(event(n) for n in range(3, 103))),
    "consumed": lambda lease, message: Commit("p", lease, consumed=((message, 2),)),
    "event and consumed": lambda lease, message: Commit("p", lease, (event(3),), consumed=((message, 3),)),
    "returned": lambda lease, _: Commit("p", lease, returned=(1,)),
    "cancels": lambda lease, _: Commit("p", lease, cancels=(ChildCancel("c", "0:3", '"enough"'),)),
    "children": lambda lease, _: Commit("p", lease, children=(child("new", "0:9"),)),
    "completed": lambda lease, _: Commit("p", lease, settled=Settled(TaskStatus.COMPLETED, '"late"')),
    "suspended": lambda lease, _: Commit("p", lease, settled=Settled(TaskStatus.SUSPENDED, reason="late")),
    "given back": lambda lease, _: Commit("p", lease, settled=Settled(TaskStatus.PENDING, reason="late")),
    "parked": lambda lease, _: Commit("p", lease, settled=Settled(TaskStatus.PARKED, reason="late")),
    "nothing": lambda lease, _: Commit("p", lease),
    "all of them": lambda lease, message: Commit(
        "p",
        lease,
        (event(3),),
        consumed=((message, 3),),
        cancels=(ChildCancel("c", "0:3", '"enough"'),),
        children=(child("new", "0:9"),),
        settled=Settled(TaskStatus.COMPLETED, '"late"'),
        returned=(1,),
    ),
}
each_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)


async def owned(log: ExecutionLog) -> Lease:
    """A flow `p` of `w1` with two events, a signal it took, one unread, and a child `c` that has started."""
    await register(log)
    await register(log, "w2")
    lease = await parent_of(log, child())
    await claim_one(log, "c", "w2")
    await log.send(signal("p", payload='"taken"'))
    (message,) = await log.inbox("p")
    await commit(log, Commit("p", lease, (event(1), event(2)), consumed=((message.id, 1),)))
    await log.send(signal("p", payload='"unread"'))
    return lease


async def refuse(log: ExecutionLog, lease: Lease, write: Write) -> None:
    """Try to write under a lost lease; it must change nothing."""
    unread = await log.inbox("p")
    before = (
        await log.find("p"),
        await log.history("p"),
        unread,
        await log.find("c"),
        await log.inbox("c"),
    )

    with pytest.raises(LeaseLost):
        await commit(log, write(lease, unread[0].id if unread else 1))

    after = (
        await log.find("p"),
        await log.history("p"),
        await log.inbox("p"),
        await log.find("c"),
        await log.inbox("c"),
    )
    assert after == before
    assert await log.find("new") is None


@each_write
async def test_the_former_owner_of_a_paused_flow_writes_nothing(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await log.move("p", TaskStatus.PAUSED)

    await refuse(log, lease, write)


@each_write
async def test_the_former_owner_of_a_resumed_flow_writes_nothing(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await log.move("p", TaskStatus.PAUSED)
    await log.move("p", TaskStatus.PENDING)

    await refuse(log, lease, write)


async def test_the_former_owner_of_a_resumed_flow_is_told_how_it_stands(log: ExecutionLog) -> None:
    lease = await owned(log)
    await log.move("p", TaskStatus.PAUSED)
    await log.move("p", TaskStatus.PENDING)

    with pytest.raises(LeaseLost) as refused:
        await commit(log, Commit("p", lease, (event(3),)))
    assert refused.value.status == "pending"


async def test_a_worker_that_claimed_a_flow_anew_is_told_so_when_it_writes_under_its_former_lease(
    log: ExecutionLog,
) -> None:
    lease = await owned(log)
    await log.move("p", TaskStatus.PAUSED)
    await log.move("p", TaskStatus.PENDING)
    await claim_one(log, "p")

    with pytest.raises(LeaseLost) as refused:
        await commit(log, Commit("p", lease, (event(3),)))
    assert refused.value.status == LeaseLost.CLAIMED_AGAIN


async def test_a_worker_whose_flow_was_taken_over_is_told_of_no_status_of_its_own(log: ExecutionLog) -> None:
    lease = await owned(log)
    await log.move("p", TaskStatus.PAUSED)
    await log.move("p", TaskStatus.PENDING)
    await claim_one(log, "p", "w2")

    with pytest.raises(LeaseLost, match="is owned by 'w2'") as refused:
        await commit(log, Commit("p", lease, (event(3),)))
    assert not refused.value.status


@each_write
async def test_the_former_owner_of_a_killed_flow_writes_nothing(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await log.move("p", TaskStatus.CANCELLED)

    await refuse(log, lease, write)


@each_write
async def test_a_worker_that_was_declared_dead_writes_nothing(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await kill_worker(log, "w1")

    await refuse(log, lease, write)


@each_write
async def test_a_worker_whose_flow_was_taken_over_writes_nothing(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await kill_worker(log, "w1")
    await claim_one(log, "p", "w2")

    await refuse(log, lease, write)


@each_write
async def test_a_worker_that_retired_writes_nothing(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await log.retire("w1")

    await refuse(log, lease, write)


@each_write
async def test_a_worker_writes_nothing_to_a_flow_it_disowned(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await log.disown("w1", [])

    await refuse(log, lease, write)


@each_write
async def test_a_worker_writes_nothing_under_the_lease_of_an_earlier_claim_of_its_own(
    log: ExecutionLog, write: Write
) -> None:
    lease = await owned(log)
    await settle(log, "p", lease, TaskStatus.PENDING)
    await claim_one(log, "p")

    await refuse(log, lease, write)


@each_write
async def test_a_flow_that_was_let_go_is_written_to_no_more(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await settle(log, "p", lease, TaskStatus.SUSPENDED, inbox_seen=(await log.inbox("p"))[-1].id)

    await refuse(log, lease, write)


@each_write
async def test_a_flow_that_has_ended_is_written_to_no_more(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await settle(log, "p", lease, TaskStatus.FAILED, output='"boom"')

    await refuse(log, lease, write)


@each_write
async def test_a_flow_that_was_retried_is_not_written_to_by_its_earlier_owner(
    log: ExecutionLog, write: Write
) -> None:
    lease = await owned(log)
    await settle(log, "p", lease, TaskStatus.FAILED, output='"boom"')
    await log.move("p", TaskStatus.PENDING)
    await claim_one(log, "p", "w2")

    await refuse(log, lease, write)


@each_write
@pytest.mark.parametrize("worker, later", [("w1", -1), ("w1", 1), ("w2", 0), ("", 0)])
async def test_a_lease_that_was_never_given_writes_nothing(
    log: ExecutionLog, write: Write, worker: str, later: int
) -> None:
    lease = await owned(log)

    await refuse(log, Lease(worker, lease.epoch + later), write)


@each_write
async def test_a_flow_that_was_deleted_is_written_to_no_more(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await killed_and_deleted(log)

    await refuse(log, lease, write)


@each_write
async def test_a_worker_writes_nothing_to_another_flow_that_got_the_id_of_one_it_had(
    log: ExecutionLog, write: Write
) -> None:
    lease = await owned(log)
    await killed_and_deleted(log)
    await parent_of(log, child())

    await refuse(log, lease, write)


@pytest.mark.parametrize("how", ["claimed", "created with an owner", "started as a child"])
async def test_no_epoch_of_a_deleted_flow_comes_again_for_its_id(log: ExecutionLog, how: str) -> None:
    lease = await owned(log)
    earlier = {"p": lease.epoch, "c": (await record(log, "c")).epoch}
    await settle(log, "p", lease, TaskStatus.SUSPENDED)
    earlier["p"] = max(earlier["p"], (await claim_one(log, "p")).lease.epoch)
    await killed_and_deleted(log)

    if how == "created with an owner":
        for brought in await log.create_claimed([new_flow(id, owner="w1") for id in ("p", "c")]):
            assert isinstance(brought, ClaimedFlow)
            assert brought.flow == await record(log, brought.flow.id)
    elif how == "started as a child":
        await parent_of(log, child("c"), child("p"), id="other")
    for id in ("p", "c"):
        if how != "created with an owner":
            await log.create(new_flow(id))
            await claim_one(log, id)
        assert (await record(log, id)).epoch > earlier[id]
        assert (await record(log, id)).claims == 1


async def killed_and_deleted(log: ExecutionLog) -> None:
    """What `owned` made is gone."""
    await log.move("p", TaskStatus.CANCELLED)
    await settle(log, "c", Lease("w2", (await record(log, "c")).epoch), TaskStatus.CANCELLED)
    assert await log.delete("p")
