"""Start times and wake times, by the log's clock: never early, and never lost."""

from __future__ import annotations

import asyncio

from ergon.core.commit import Commit
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    LONG_SECONDS,
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    ids,
    is_near,
    new_flow,
    record,
    register,
    settle,
    signal,
    stamp,
    status_of,
    until,
)

SOON_SECONDS = 0.06


async def test_the_clock_of_the_log_goes_on(log: ExecutionLog) -> None:
    first = log.now()

    await until(lambda: log.now() > first)

    assert is_near(log.now(), await stamp(log))


async def test_a_flow_is_not_claimable_before_its_start_and_is_after(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", delay_seconds=SOON_SECONDS))
    due = (await record(log, "f1")).wake_at

    (claimed,) = await until(lambda: claim(log))

    assert due is not None
    assert claimed.flow.started_at is not None
    assert claimed.flow.started_at >= due
    assert claimed.flow.wake_at is None


async def test_a_start_time_is_kept_as_it_was_given(log: ExecutionLog) -> None:
    at = log.now() + LONG_SECONDS
    await log.create(new_flow("at", start_at=at))
    await log.create(new_flow("delayed", delay_seconds=LONG_SECONDS))

    exact, delayed = await record(log, "at"), await record(log, "delayed")

    assert exact.wake_at is not None
    assert abs(exact.wake_at - at) < 1e-5
    assert delayed.wake_at is not None
    assert abs(delayed.wake_at - delayed.created_at - LONG_SECONDS) < 1e-3
    assert (exact.status, exact.started_at) == (TaskStatus.PENDING, None)


async def test_a_start_time_that_has_passed_is_at_once(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", start_at=log.now() - 60))
    await log.create(new_flow("f2", delay_seconds=0.0))

    assert (await record(log, "f1")).wake_at is None
    assert sorted(ids(await claim(log))) == ["f1", "f2"]


async def test_a_flow_whose_start_lies_further_back_has_been_ready_for_longer(log: ExecutionLog) -> None:
    await register(log)
    for id, ago in [("a", 10), ("b", 30), ("c", 20)]:
        await log.create(new_flow(id, start_at=log.now() - ago))

    assert ids(await claim(log)) == ["b", "c", "a"]


async def test_a_flow_due_in_the_future_is_left_alone_also_by_its_id(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("f1", delay_seconds=LONG_SECONDS))

    assert await claim(log) == []
    assert await claim(log, flow_id="f1") == []
    assert (await record(log, "f1")).claims == 0


async def test_flows_that_fall_due_are_claimed_by_priority(log: ExecutionLog) -> None:
    await register(log)
    for id, priority in [("low", 0), ("high", 9), ("middle", 5)]:
        await log.create(new_flow(id, priority=priority, delay_seconds=SOON_SECONDS))
    last = (await record(log, "middle")).wake_at or 0.0

    async def all_are_due() -> bool:
        return await stamp(log) > last

    await until(all_are_due)

    assert ids(await claim(log)) == ["high", "middle", "low"]


async def test_a_flow_that_waited_for_its_time_stands_behind_those_that_were_ready_before(
    log: ExecutionLog,
) -> None:
    await register(log)
    await log.create(new_flow("ready"))
    await log.create(new_flow("later", delay_seconds=SOON_SECONDS))
    due = (await record(log, "later")).wake_at or 0.0

    async def is_due() -> bool:
        return await stamp(log) > due

    await until(is_due)
    await log.create(new_flow("after"))

    assert ids(await claim(log)) == ["ready", "later", "after"]


async def test_a_sleeping_flow_wakes_when_it_is_due_never_before(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    due = await stamp(log) + SOON_SECONDS
    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=due)

    (claimed,) = await until(lambda: claim(log))

    assert await stamp(log) >= due
    assert claimed.lease.claims == 2
    assert claimed.flow.wake_at is None


async def test_a_sleeping_flow_whose_time_has_passed_is_claimed_at_once(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), TaskStatus.SUSPENDED, wake_at=log.now() - 60)

    assert ids(await claim(log)) == ["f1"]


async def test_a_sleeping_flow_without_a_time_sleeps_on(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "f1", await claimed_flow(log), TaskStatus.SUSPENDED)

    assert await claim(log) == []
    assert await log.next_wake(["order"]) is None


async def test_a_flow_given_back_until_later_is_not_claimed_before(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    due = await stamp(log) + SOON_SECONDS
    await settle(log, "f1", lease, TaskStatus.PENDING, wake_at=due)
    assert await status_of(log, "f1") is TaskStatus.PENDING

    await until(lambda: claim(log))

    assert await stamp(log) >= due


async def test_a_signal_does_not_start_a_flow_before_its_time(log: ExecutionLog) -> None:
    await register(log)
    await log.create(new_flow("new", delay_seconds=LONG_SECONDS))
    await settle(
        log, "back", await claimed_flow(log, "back"), TaskStatus.PENDING, wake_at=log.now() + LONG_SECONDS
    )

    for id in ("new", "back"):
        await log.send(signal(id))

    assert await claim(log) == []
    assert [len(await log.inbox(id)) for id in ("new", "back")] == [1, 1]


async def test_the_next_wake_is_the_earliest_of_the_names_asked_for(log: ExecutionLog) -> None:
    await register(log)
    base = log.now() + LONG_SECONDS
    for name, after in [("a", 30), ("a", 10), ("b", 5), ("b", 20)]:
        await log.create(new_flow(name=name, start_at=base + after))
    await settle(log, "f1", await claimed_flow(log), TaskStatus.SUSPENDED, wake_at=base + 1)

    async def next_wake(*names: str) -> float | None:
        at = await log.next_wake(names)
        return None if at is None else round(at - base, 3)

    assert await next_wake("a") == 10
    assert await next_wake("a", "b") == 5
    assert await next_wake("b", "order", "else") == 1
    assert await next_wake("else") is None
    assert await next_wake() is None


async def test_a_flow_that_wakes_no_more_by_time_is_no_next_wake(log: ExecutionLog) -> None:
    await register(log)
    for id in ("killed", "paused", "signalled", "cancelled"):
        await settle(
            log, id, await claimed_flow(log, id), TaskStatus.SUSPENDED, wake_at=log.now() + LONG_SECONDS
        )
    await log.move("killed", TaskStatus.CANCELLED)
    await log.move("paused", TaskStatus.PAUSED)
    await log.send(signal("signalled"))
    await log.create(new_flow("unstarted", delay_seconds=LONG_SECONDS))
    await log.move("unstarted", TaskStatus.CANCELLED)
    await log.move("cancelled", TaskStatus.CANCELLED)

    assert await log.next_wake(["order"]) is None


async def test_a_worker_that_leaves_what_falls_due_to_others_gets_what_is_ready(log: ExecutionLog) -> None:
    await register(log)
    await settle(log, "due", await claimed_flow(log, "due"), TaskStatus.SUSPENDED, wake_at=log.now() - 60)
    await log.create(new_flow("ready"))

    assert ids(await claim(log, due=False)) == ["ready"]
    assert ids(await claim(log)) == ["due"]


async def test_more_flows_than_one_look_can_wake_all_wake_in_the_end(log: ExecutionLog) -> None:
    await register(log)
    await asyncio.gather(*(log.create(new_flow(f"f{n}", delay_seconds=0.2)) for n in range(2_500)))
    claimed: set[str] = set()

    async def all_are_claimed() -> bool:
        claimed.update(ids(await claim(log, limit=1_000)))
        return len(claimed) == 2_500

    await until(all_are_claimed, seconds=60)

    assert await log.next_wake(["order"]) is None


async def test_a_flow_that_wakes_goes_on_where_it_was(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))
    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=log.now() - 1)

    again = await claim_one(log, "f1")

    assert again.events == [event(1)]
    assert again.flow.reason == ""
