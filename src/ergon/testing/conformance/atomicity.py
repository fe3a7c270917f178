"""A commit lands whole or not at all, and alone whatever shares its transaction."""

from __future__ import annotations

import pytest

from ergon.core.commit import ChildCancel, Commit, Lease, Settled
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.errors import IllegalMove, LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    child,
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    new_flow,
    parent_of,
    record,
    register,
    settle,
    signal,
    status_of,
    stop,
)


async def test_all_parts_of_a_commit_are_there_once_it_is_done(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child("old", "0:1"))
    await claim_one(log, "old")
    await log.send(signal("p"))
    (message,) = await log.inbox("p")

    await commit(
        log,
        Commit(
            "p",
            lease,
            (event(1), event(2)),
            consumed=((message.id, 2),),
            cancels=(stop("old", "0:1"),),
            children=(child("new", "0:2"),),
            settled=Settled(
                TaskStatus.SUSPENDED, wake_at=log.now() + 3600, inbox_seen=message.id, reason="[]"
            ),
        ),
    )

    flow = await record(log, "p")
    assert (flow.status, flow.owner, flow.reason) == (TaskStatus.SUSPENDED, None, "[]")
    assert await log.history("p") == [event(1), event(2)]
    assert await log.inbox("p") == []
    assert [told.kind for told in await log.inbox("old")] == ["cancel"]
    assert (await record(log, "new")).parent_id == "p"


async def test_a_commit_is_not_done_before_its_call_returned(log: ExecutionLog) -> None:
    """`done` is a callback: whoever submits may rely on what it does next coming first."""
    await register(log)
    lease = await claimed_flow(log)
    told: list[BaseException | None] = []

    log.submit(Commit("f1", lease, (event(1),)), told.append)
    assert told == []
    await commit(log, Commit("f1", lease, (event(2),)))

    assert told == [None]


async def test_a_commit_with_one_refused_event_leaves_none_of_its_parts(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    other = await claimed_flow(log, "f2")
    await commit(log, Commit("f1", lease, (event(1),)))

    errors = await commit_all(
        log,
        Commit("f2", other, (event(1),)),
        Commit("f1", lease, (event(2), event(1, "other")), children=(new_flow("c1"),)),
    )

    assert errors[0] is None
    assert isinstance(errors[1], IllegalMove)
    assert len(await log.history("f1")) == 1
    assert await log.find("c1") is None
    assert await log.history("f2") == [event(1)]


async def test_a_commit_that_consumes_what_is_not_there_leaves_none_of_its_parts(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, child("c"))
    await log.send(signal("p"))
    (message,) = await log.inbox("p")

    with pytest.raises(IllegalMove):
        await commit(
            log,
            Commit(
                "p",
                lease,
                (event(1),),
                consumed=((message.id, 1), (message.id + 1_000_000, 1)),
                cancels=(stop("c"),),
                children=(child("d", "0:4"),),
                settled=Settled(TaskStatus.COMPLETED, "1"),
            ),
        )

    assert await log.history("p") == []
    assert await log.inbox("p") == [message]
    assert await log.find("d") is None
    assert await status_of(log, "c") is TaskStatus.PENDING
    assert await status_of(log, "p") is TaskStatus.RUNNING


async def test_a_commit_that_returns_what_it_never_took_leaves_none_of_its_parts(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    with pytest.raises(IllegalMove):
        await commit(log, Commit("f1", lease, (event(1),), children=(new_flow("c1"),), returned=(7,)))

    assert await log.history("f1") == []
    assert await log.find("c1") is None


async def test_a_message_of_another_flow_cannot_be_consumed(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await claimed_flow(log, "f2")
    await log.send(signal("f2"))
    (theirs,) = await log.inbox("f2")

    with pytest.raises(IllegalMove):
        await commit(log, Commit("f1", lease, (event(1),), consumed=((theirs.id, 1),)))

    assert await log.inbox("f2") == [theirs]
    assert await log.history("f1") == []


def more(n: int) -> list[Event]:
    """Of some commits, many events beside the first."""
    return [event(number) for number in range(2, 40)] if n % 5 == 0 else []


async def test_each_commit_of_a_batch_succeeds_or_fails_on_its_own(log: ExecutionLog) -> None:
    await register(log)
    leases = {n: await claimed_flow(log, f"f{n}") for n in range(20)}
    commits = [
        Commit(f"f{n}", lease if n % 3 else Lease("w1", 99), (event(1, payload=str(n)), *more(n)))
        for n, lease in leases.items()
    ]

    errors = await commit_all(log, *commits)

    for n, error in enumerate(errors):
        if n % 3:
            assert error is None
            assert await log.history(f"f{n}") == [event(1, payload=str(n)), *more(n)]
        else:
            assert isinstance(error, LeaseLost)
            assert await log.history(f"f{n}") == []


async def test_a_refused_commit_is_told_so_and_the_next_of_its_flow_lands(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    errors = await commit_all(
        log,
        Commit("f1", lease, (event(1),)),
        Commit("f1", lease, (event(1, "other"),)),
        Commit("f1", lease, (event(2),)),
    )

    assert errors[0] is None
    assert isinstance(errors[1], IllegalMove)
    assert errors[2] is None
    assert await log.history("f1") == [event(1), event(2)]


async def test_writes_of_other_kinds_beside_a_refused_commit_land(log: ExecutionLog) -> None:
    await register(log)
    await claimed_flow(log)
    (refused, created) = (
        commit_all(log, Commit("f1", Lease("w1", 99), (event(1),))),
        log.create(new_flow("f2")),
    )

    errors, record_there = await refused, await created

    assert isinstance(errors[0], LeaseLost)
    assert record_there is None
    assert await status_of(log, "f2") is TaskStatus.PENDING


async def test_a_commit_of_nothing_still_asks_for_the_lease(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    await commit(log, Commit("f1", lease))

    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", Lease("w1", lease.epoch + 1)))


async def test_a_commit_of_a_flow_that_does_not_exist_is_a_lost_lease(log: ExecutionLog) -> None:
    await register(log)

    with pytest.raises(LeaseLost):
        await commit(log, Commit("nobody", Lease("w1", 1), (event(1),), children=(new_flow("c1"),)))

    assert await log.find("c1") is None
    assert await log.history("nobody") == []


async def test_a_value_the_store_cannot_keep_fails_alone(log: ExecutionLog) -> None:
    await register(log)
    lease, other = await claimed_flow(log), await claimed_flow(log, "f2")

    errors = await commit_all(
        log,
        Commit("f1", lease, (event(1, "\ud800"),), children=(new_flow("c1"),)),
        Commit("f2", other, (event(1),)),
    )

    assert errors[0] is not None
    assert errors[1] is None
    assert await log.history("f1") == []
    assert await log.find("c1") is None


async def test_a_commit_that_ends_a_flow_and_its_children_tells_nobody_when_it_is_refused(
    log: ExecutionLog,
) -> None:
    await register(log)
    await parent_of(log, child("c", "0:1"))
    lease = (await claim_one(log, "c")).lease
    await commit(
        log, Commit("c", lease, (event(1),), children=(new_flow("g", parent_id="c", parent_op="0:1"),))
    )

    with pytest.raises(IllegalMove):
        await commit(
            log, Commit("c", lease, (event(1, "other"),), settled=Settled(TaskStatus.COMPLETED, "1"))
        )

    assert await log.inbox("p") == []
    assert await status_of(log, "g") is TaskStatus.PENDING


async def test_many_events_in_one_commit_land_together(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    await commit(log, Commit("f1", lease, tuple(event(n) for n in range(1, 1_301))))

    assert [e.seq for e in await log.history("f1")] == list(range(1, 1_301))


async def test_many_children_and_cancels_in_one_commit_land_together(log: ExecutionLog) -> None:
    await register(log)
    lease = await parent_of(log, *(child(f"old{n}", f"0:{n}") for n in range(150)))

    await commit(
        log,
        Commit(
            "p",
            lease,
            children=tuple(child(f"new{n}", f"1:{n}") for n in range(150)),
            cancels=tuple(ChildCancel(f"old{n}", f"0:{n}", '""') for n in range(150)),
        ),
    )

    found = [await record(log, f"{kind}{n}") for kind in ("old", "new") for n in range(150)]
    assert [flow.status for flow in found] == [TaskStatus.CANCELLED] * 150 + [TaskStatus.PENDING] * 150


async def test_what_a_flow_leaves_behind_when_it_is_let_go_is_there_at_its_next_claim(
    log: ExecutionLog,
) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))
    await commit(log, Commit("f1", lease, (event(2),), settled=Settled(TaskStatus.PENDING)))

    again = await claim_one(log, "f1")

    assert again.events == [event(1), event(2)]
    await settle(log, "f1", again.lease, output="1")
    assert await status_of(log, "f1") is TaskStatus.COMPLETED
