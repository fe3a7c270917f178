"""Whoever lost a flow writes nothing to it: every kind of write, after every way of losing it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ergon.core.commit import ChildCancel, Commit, Lease, NewFlow, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    child,
    claim,
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    kill_worker,
    new_flow,
    parent_of,
    record,
    register,
    settle,
    signal,
    status_of,
)

Write = Callable[[Lease, int], Commit]
"""A commit of flow `p` that would do something of one kind; given the lease and a message's id."""

WRITES: dict[str, Write] = {
    "events": lambda lease, _: Commit("p", lease, (event(3),)),
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
@pytest.mark.parametrize("stale", [Lease("w1", 0), Lease("w1", 2), Lease("w2", 1), Lease("", 1)])
async def test_a_lease_that_was_never_given_writes_nothing(
    log: ExecutionLog, write: Write, stale: Lease
) -> None:
    await owned(log)

    await refuse(log, stale, write)


@each_write
async def test_a_flow_that_was_deleted_is_written_to_no_more(log: ExecutionLog, write: Write) -> None:
    lease = await owned(log)
    await log.move("p", TaskStatus.CANCELLED)
    await settle(log, "c", Lease("w2", 1), TaskStatus.CANCELLED)
    assert await log.delete("p")

    await refuse(log, lease, write)


async def test_a_worker_that_is_not_alive_creates_no_flow_for_itself(log: ExecutionLog) -> None:
    for worker in ("dead", "retired"):
        await register(log, worker)
    await kill_worker(log, "dead")
    await log.retire("retired")

    for worker in ("dead", "retired", "never-there"):
        with pytest.raises(LeaseLost):
            await log.create(new_flow("f1", owner=Lease(worker, 1)))

    assert await log.find("f1") is None


async def test_a_worker_that_is_not_alive_claims_nothing(log: ExecutionLog) -> None:
    for worker in ("dead", "retired"):
        await register(log, worker)
    await kill_worker(log, "dead")
    await log.retire("retired")
    await log.create(new_flow("f1"))

    for worker in ("dead", "retired", "never-there"):
        with pytest.raises(LeaseLost):
            await claim(log, worker)
        with pytest.raises(LeaseLost):
            await claim(log, worker, flow_id="f1")

    assert await status_of(log, "f1") is TaskStatus.PENDING


async def test_a_worker_that_is_not_alive_renews_nothing(log: ExecutionLog) -> None:
    for worker in ("dead", "retired"):
        await register(log, worker)
    await kill_worker(log, "dead")
    await log.retire("retired")

    for worker in ("dead", "retired", "never-there"):
        with pytest.raises(LeaseLost):
            await log.renew(worker, lease_seconds=30.0)


async def test_a_worker_that_was_declared_dead_cannot_come_back_under_its_id(log: ExecutionLog) -> None:
    await register(log)
    await kill_worker(log, "w1")

    with pytest.raises(LeaseLost):
        await register(log)

    assert [worker.state for worker in await log.workers()] == ["dead"]


async def test_a_worker_says_nothing_of_flows_that_are_not_its_own(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    await claimed_flow(log, "theirs", "w2")
    await log.create(new_flow("nobodys"))

    await log.renew("w1", lease_seconds=30.0, doing={"theirs": "lies", "nobodys": "lies", "absent": "lies"})

    assert [(await record(log, id)).reason for id in ("theirs", "nobodys")] == ["", ""]


async def test_each_claim_gives_a_higher_epoch_and_only_the_last_one_writes(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    leases = []
    for n in range(4):
        await register(log, f"w{n}")
        leases.append((await claim_one(log, "f1", f"w{n}")).lease)
        if n < 3:
            await kill_worker(log, f"w{n}")

    errors = await commit_all(
        log, *(Commit("f1", lease, (event(1, str(n)),)) for n, lease in enumerate(leases))
    )

    assert [type(error) for error in errors] == [LeaseLost] * 3 + [type(None)]
    assert [lease.epoch for lease in leases] == [1, 2, 3, 4]
    assert await log.history("f1") == [event(1, "3")]


async def test_a_child_of_a_lost_parent_is_neither_started_nor_told(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child())
    stale = Lease("w1", lease.epoch + 1)
    late: list[NewFlow] = [child("d", "0:4"), child("e", "0:5")]

    errors = await commit_all(
        log,
        Commit("p", stale, children=(late[0],)),
        Commit("p", stale, (event(1),), children=(late[1],)),
        Commit("p", stale, cancels=(ChildCancel(None, "0:3", '"enough"'),)),
    )

    assert [type(error) for error in errors] == [LeaseLost] * 3
    assert [await log.find(one.id) for one in late] == [None, None]
    assert await status_of(log, "c") is TaskStatus.PENDING
