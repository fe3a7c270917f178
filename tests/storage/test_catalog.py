"""Conformance: what anyone may read, and the hints to look."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ergon.core.commit import Commit, FlowFilter, Hint, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LogClosed
from tests.storage.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    new_flow,
    register,
    settle,
    signal,
    until,
)


async def test_what_is_not_there_is_none_or_empty(log):
    assert await log.find("nobody") is None
    assert await log.history("nobody") == []
    assert await log.inbox("nobody") == []
    assert await log.ended_or_parked(["nobody"]) == ([], ["nobody"])
    assert await log.list(FlowFilter()) == ([], None)
    assert await log.count(FlowFilter()) == {}
    assert await log.workers() == []
    assert await log.next_wake([]) is None
    assert await log.arrivals("nobody", 0) == (0, [])


async def test_pages_cover_every_flow_once_newest_first(log):
    for n in range(25):
        await log.create(new_flow(f"f{n:02}"))

    seen, after, pages = [], None, 0
    while True:
        flows, after = await log.list(FlowFilter(), limit=10, after=after)
        seen += [flow.id for flow in flows]
        pages += 1
        if after is None:
            break

    assert pages == 3
    assert seen == [f"f{n:02}" for n in reversed(range(25))]


async def test_pages_merge_several_statuses_in_order(log):
    await register(log)
    for n in range(12):
        lease = await claimed_flow(log, f"f{n:02}")
        await settle(log, f"f{n:02}", lease, TaskStatus.COMPLETED if n % 2 else TaskStatus.FAILED)
    both = FlowFilter(statuses=(TaskStatus.FAILED, TaskStatus.COMPLETED))

    first, after = await log.list(both, limit=5)
    second, _ = await log.list(both, limit=100, after=after)

    assert [one.id for one in first + second] == [f"f{n:02}" for n in reversed(range(12))]
    assert await log.count(both) == {TaskStatus.FAILED: 6, TaskStatus.COMPLETED: 6}


@pytest.mark.parametrize(
    "where, expected",
    [
        (FlowFilter(names=("b",)), {"b1"}),
        (FlowFilter(names=("b", "order")), {"a1", "a2", "b1", "c1"}),
        (FlowFilter(queue="gpu"), {"a2"}),
        (FlowFilter(version="v1"), {"a2"}),
        (FlowFilter(id_prefix="a"), {"a1", "a2"}),
        (FlowFilter(parent_id="a1"), {"c1"}),
        (FlowFilter(statuses=(TaskStatus.PAUSED,)), {"a1"}),
        (FlowFilter(created_after=1_800_000_001.5), {"b1", "c1"}),
        (FlowFilter(created_before=1_800_000_000.5), {"a1"}),
        (FlowFilter(names=("b",), queue="gpu"), set()),
    ],
)
async def test_each_filter_narrows_lists_and_counts_alike(log, clock, where, expected):
    for flow in (
        new_flow("a1"),
        new_flow("a2", queue="gpu", version="v1"),
        new_flow("b1", name="b"),
        new_flow("c1", parent_id="a1", parent_op="0:1"),
    ):
        await log.create(flow)
        clock.advance(1)
    await log.move("a1", TaskStatus.PAUSED)

    flows, _ = await log.list(where)

    assert {flow.id for flow in flows} == expected
    assert sum((await log.count(where)).values()) == len(expected)


async def test_settled_names_those_that_ended_or_are_parked(log):
    await register(log)
    for id, status in [
        ("done", TaskStatus.COMPLETED),
        ("parked", TaskStatus.PARKED),
        ("asleep", TaskStatus.SUSPENDED),
    ]:
        await settle(log, id, await claimed_flow(log, id), status, reason="why" if id == "parked" else "")

    found, absent = await log.ended_or_parked(["asleep", "parked", "done", "nobody"])

    assert [(one.id, one.status) for one in found] == [("parked", "parked"), ("done", "completed")]
    assert found[0].reason == "why"
    assert absent == ["nobody"]


async def test_arrivals_brings_each_message_for_the_workers_flows_past_the_cursor(log):
    await register(log)
    await register(log, "w2")
    await claimed_flow(log, "mine")
    await claimed_flow(log, "theirs", "w2")
    await log.send(signal("mine", payload="1"))
    await log.send(signal("theirs", payload="2"))

    cursor, messages = await log.arrivals("w1", 0)
    assert [m.payload for m in messages] == ["1"]
    assert await log.arrivals("w1", cursor) == (cursor, [])
    await log.send(signal("theirs", payload="3"))
    await log.send(signal("mine", payload="4"))
    later, messages = await log.arrivals("w1", cursor)

    assert later > cursor
    assert [m.payload for m in messages] == ["4"]


async def test_listeners_hear_what_changed(log):
    await register(log)
    heard: list[Hint] = []
    stop = log.subscribe(heard.append)

    await log.create(new_flow("f1"))
    await log.create(new_flow("later", delay_seconds=50.0))
    claimed = await claim_one(log, "f1")
    await log.send(signal("f1"))
    await commit(log, Commit("f1", claimed.lease, (event(1),)))
    await commit(log, Commit("f1", claimed.lease, settled=Settled(TaskStatus.COMPLETED)))
    await until(lambda: any("f1" in hint.settled for hint in heard))

    assert any(hint.ready for hint in heard)
    assert any(hint.wake_at == log.now() + 50 for hint in heard)
    assert any("f1" in hint.inbox for hint in heard)
    stop()
    count = len(heard)
    await log.create(new_flow("f2"))
    assert len(heard) == count


async def test_a_listener_that_raises_does_not_disturb_the_others(log, caplog):
    heard: list[Hint] = []
    log.subscribe(lambda hint: 1 / 0)
    log.subscribe(heard.append)

    await log.create(new_flow("f1"))
    await until(lambda: heard)

    assert "listener" in caplog.text


async def test_a_closed_log_answers_with_log_closed(log):
    await register(log)
    lease = await claimed_flow(log)
    await log.close()
    await log.close()

    with pytest.raises(LogClosed):
        await log.find("f1")
    with pytest.raises(LogClosed):
        await log.create(new_flow("f2"))
    with pytest.raises(LogClosed):
        await commit(log, Commit("f1", lease, (event(1),)))


async def test_closing_finishes_what_was_submitted(log):
    await register(log)
    lease = await claimed_flow(log)
    answers: list[Any] = []
    for n in range(1, 101):
        log.submit(Commit("f1", lease, (event(n),)), answers.append)

    await log.close()

    assert answers == [None] * 100


async def test_a_callback_that_raises_does_not_keep_others_waiting(log):
    await register(log)
    lease = await claimed_flow(log)
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reported.append(context))

    log.submit(Commit("f1", lease, (event(1),)), lambda error: 1 / 0)
    await commit(log, Commit("f1", lease, (event(2),)))

    assert len(await log.history("f1")) == 2
    assert isinstance(reported[0]["exception"], ZeroDivisionError)


async def test_connecting_twice_changes_nothing(log):
    await log.create(new_flow("f1"))

    assert await log.connect() is log
    assert await log.find("f1") is not None


async def test_a_page_of_flows_read_while_others_are_written_is_whole(log):
    await register(log)

    async def write():
        await asyncio.gather(*(log.create(new_flow()) for _ in range(300)))

    async def read():
        for _ in range(20):
            flows, _ = await log.list(FlowFilter(), limit=500)
            assert all(flow.input == "{}" for flow in flows)
            await claim(log, limit=10)

    await asyncio.gather(write(), read())
    assert sum((await log.count(FlowFilter())).values()) == 300


async def test_an_owner_hears_which_of_its_flows_were_taken_away(log):
    await register(log)
    await register(log, "w2")
    leases = [
        (flow_id, (await claimed_flow(log, flow_id)).epoch)
        for flow_id in ("mine", "paused", "killed", "elsewhere", "mine again", 'a "quoted" name', "gone")
    ]
    for flow_id in ("paused", "elsewhere", "mine again", 'a "quoted" name'):
        await log.move(flow_id, TaskStatus.PAUSED)
    for flow_id in ("killed", "gone"):
        await log.move(flow_id, TaskStatus.CANCELLED)
    await log.delete("gone")
    for flow_id, worker in (("elsewhere", "w2"), ("mine again", "w1")):
        await log.move(flow_id, TaskStatus.PENDING)
        await claim_one(log, flow_id, worker)

    assert dict(await log.lost("w1", leases)) == {
        "paused": "paused",
        "killed": "cancelled",
        "elsewhere": "running",
        "mine again": "running",
        'a "quoted" name': "paused",
        "gone": None,
    }
    assert await log.lost("w1", []) == []
