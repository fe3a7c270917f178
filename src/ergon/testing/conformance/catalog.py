"""What anyone may read of flows, one by one and counted."""

from __future__ import annotations

from ergon.core.commit import FlowFilter
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claimed_flow,
    new_flow,
    record,
    register,
    settle,
    signal,
)


async def test_what_is_not_there_is_none_or_empty(log: ExecutionLog) -> None:
    assert await log.find("nobody") is None
    assert await log.history("nobody") == []
    assert await log.inbox("nobody") == []
    assert await log.ended_or_parked(["nobody"]) == ([], ["nobody"])
    assert await log.ended_or_parked([]) == ([], [])
    assert await log.list(FlowFilter()) == ([], None)
    assert await log.count(FlowFilter()) == {}
    assert await log.workers() == []
    assert await log.next_wake([]) is None
    assert await log.arrivals("nobody", 0) == (0, [])
    assert list(await log.lost("nobody", [("nobody", 1)])) == [("nobody", None)]


async def test_those_that_ended_or_are_parked_are_told_in_the_order_asked(log: ExecutionLog) -> None:
    await register(log)
    for id, status in [
        ("completed", TaskStatus.COMPLETED),
        ("failed", TaskStatus.FAILED),
        ("cancelled", TaskStatus.CANCELLED),
        ("parked", TaskStatus.PARKED),
        ("asleep", TaskStatus.SUSPENDED),
        ("pending", TaskStatus.PENDING),
    ]:
        await settle(log, id, await claimed_flow(log, id), status, reason="why" if id == "parked" else "")
    await claimed_flow(log, "running")
    await log.create(new_flow("paused"))
    await log.move("paused", TaskStatus.PAUSED)

    asked = [
        "asleep",
        "parked",
        "failed",
        "nobody",
        "running",
        "completed",
        "pending",
        "paused",
        "cancelled",
        "none",
    ]
    found, absent = await log.ended_or_parked(asked)

    assert [one.id for one in found] == ["parked", "failed", "completed", "cancelled"]
    assert found[0] == await record(log, "parked")
    assert absent == ["nobody", "none"]


async def test_many_flows_can_be_asked_for_at_once(log: ExecutionLog) -> None:
    await register(log)
    for n in range(0, 40, 2):
        await settle(log, f"f{n}", await claimed_flow(log, f"f{n}"))

    found, absent = await log.ended_or_parked([f"f{n}" for n in range(40)] * 20)

    assert {one.id for one in found} == {f"f{n}" for n in range(0, 40, 2)}
    assert set(absent) == {f"f{n}" for n in range(1, 40, 2)}


async def test_flows_are_counted_by_status(log: ExecutionLog) -> None:
    await register(log)
    for n in range(3):
        await log.create(new_flow())
        await settle(log, f"done{n}", await claimed_flow(log, f"done{n}"))
    await claimed_flow(log, "running")

    assert await log.count(FlowFilter()) == {
        TaskStatus.PENDING: 3,
        TaskStatus.COMPLETED: 3,
        TaskStatus.RUNNING: 1,
    }


async def test_counts_can_be_narrowed_to_statuses(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow())
    await claimed_flow(log, "running")

    assert await log.count(FlowFilter(statuses=(TaskStatus.RUNNING, TaskStatus.FAILED))) == {
        TaskStatus.RUNNING: 1
    }
    assert await log.count(FlowFilter(statuses=(TaskStatus.FAILED,))) == {}


async def test_counts_follow_a_flow_through_its_life(log: ExecutionLog) -> None:
    await register(log)
    seen = []

    async def look() -> None:
        seen.append(await log.count(FlowFilter()))

    lease = await claimed_flow(log)
    await look()
    await settle(log, "f1", lease, TaskStatus.SUSPENDED)
    await look()
    await log.send(signal("f1"))
    await look()
    await log.move("f1", TaskStatus.PAUSED)
    await look()
    await log.move("f1", TaskStatus.CANCELLED)
    await look()
    await log.delete("f1")
    await look()

    assert [list(counts.items()) for counts in seen] == [
        [("running", 1)],
        [("suspended", 1)],
        [("pending", 1)],
        [("paused", 1)],
        [("cancelled", 1)],
        [],
    ]


async def test_what_is_read_after_a_write_was_answered_has_it(log: ExecutionLog) -> None:
    for n in range(30):
        await log.create(new_flow(f"f{n}"))
        assert (await record(log, f"f{n}")).status is TaskStatus.PENDING
        assert (await log.list(FlowFilter(), limit=1))[0][0].id == f"f{n}"
        await log.send(signal(f"f{n}"))
        assert len(await log.inbox(f"f{n}")) == 1
        await log.move(f"f{n}", TaskStatus.PAUSED)
        assert (await log.count(FlowFilter()))[TaskStatus.PAUSED] == n + 1
