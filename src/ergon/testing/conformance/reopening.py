"""What was acknowledged is there when the log is opened again."""

from __future__ import annotations

from ergon.core.commit import Commit, FlowFilter, Settled
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    LONG_SECONDS,
    child,
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    new_flow,
    parent_of,
    record,
    register,
    settle,
    signal,
    status_of,
)
from ergon.testing.conformance.store import Store


async def test_everything_is_there_when_the_log_is_opened_again(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        lease = await parent_of(log, child(close_with_parent=False))
        await log.send(signal("p", key="k"))
        await commit(log, Commit("p", lease, (event(1),)))
        await log.create(new_flow("later", delay_seconds=LONG_SECONDS, tags=("x",), version="v"))
        before = await picture(log)

    async with store.open() as log:
        assert await picture(log) == before
        assert await log.has_key(signal("p", key="k"))


async def test_a_handle_that_is_connected_again_has_everything_too(store: Store) -> None:
    log = store.open()
    async with log:
        await log.create(new_flow("f1"))
        before = await picture(log)

    async with log:
        assert await picture(log) == before


async def test_a_worker_that_lives_keeps_its_flows_while_the_log_is_opened_again(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        lease = await claimed_flow(log)

    async with store.open() as log:
        assert await log.reap() == []
        await commit(log, Commit("f1", lease, (event(1),)))


async def test_what_was_submitted_before_closing_is_there(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        lease = await claimed_flow(log)
        for n in range(1, 51):
            log.submit(Commit("f1", lease, (event(n),)), lambda _: None)

    async with store.open() as log:
        assert [e.seq for e in await log.history("f1")] == list(range(1, 51))


async def test_a_flow_goes_on_in_a_later_opening(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        lease = await claimed_flow(log)
        await commit(log, Commit("f1", lease, (event(1),), settled=Settled(TaskStatus.SUSPENDED)))

    async with store.open() as log:
        await register(log, "w2")
        await log.send(signal("f1"))
        (claimed,) = await claim(log, "w2")
        assert (claimed.events, [message.name for message in claimed.inbox]) == ([event(1)], ["go"])
        await settle(log, "f1", claimed.lease, output="1")

    async with store.open() as log:
        assert (await record(log, "f1")).output == "1"


async def test_the_order_of_messages_and_pages_goes_on_over_openings(store: Store) -> None:
    for n in range(3):
        async with store.open() as log:
            await log.create(new_flow(f"f{n}"))
            await log.send(signal("f0", payload=str(n)))

    async with store.open() as log:
        assert [message.payload for message in await log.inbox("f0")] == ["0", "1", "2"]
        assert [flow.id for flow in (await log.list(FlowFilter()))[0]] == ["f2", "f1", "f0"]


async def test_a_cursor_of_arrivals_holds_over_openings(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        await claimed_flow(log)
        await log.send(signal("f1", payload="1"))
        cursor, _ = await log.arrivals("w1", 0)

    async with store.open() as log:
        await log.send(signal("f1", payload="2"))
        _, messages = await log.arrivals("w1", cursor)
        assert [message.payload for message in messages] == ["2"]


async def test_a_priority_and_a_place_in_the_line_hold_over_openings(store: Store) -> None:
    async with store.open() as log:
        for id, priority in (("a", 0), ("b", 9), ("c", 0)):
            await log.create(new_flow(id, priority=priority))

    async with store.open() as log:
        await register(log)
        assert [one.flow.id for one in await claim(log)] == ["b", "a", "c"]
        assert await status_of(log, "c") is TaskStatus.RUNNING


async def picture(log: ExecutionLog) -> object:
    """All that can be read."""
    flows, after = await log.list(FlowFilter())
    return (
        flows,
        after,
        [(await log.history(flow.id), await log.inbox(flow.id)) for flow in flows],
        await log.count(FlowFilter()),
        await log.workers(),
        await log.next_wake(["order"]),
        await log.arrivals("w1", 0),
    )


async def test_an_epoch_goes_on_over_openings(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        await settle(log, "f1", await claimed_flow(log), TaskStatus.PENDING)

    async with store.open() as log:
        assert (await claim_one(log, "f1")).lease.claims == 2
