"""Lists: newest first, in pages, narrowed by each filter."""

from __future__ import annotations

import asyncio
from itertools import chain

import pytest

from ergon.core.commit import Commit, FlowFilter, Settled
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    ids,
    new_flow,
    record,
    register,
    settle,
)


async def all_pages(log: ExecutionLog, where: FlowFilter, limit: int) -> list[list[str]]:
    """The ids of each page."""
    pages: list[list[str]] = []
    after = None
    while True:
        flows, after = await log.list(where, limit=limit, after=after)
        pages.append(ids(flows))
        if after is None:
            return pages
        assert len(pages) < 1_000, "the pages never end"


async def test_pages_cover_every_flow_once_newest_first(log: ExecutionLog) -> None:
    for n in range(25):
        await log.create(new_flow(f"f{n:02}"))

    pages = await all_pages(log, FlowFilter(), 10)

    assert [len(page) for page in pages] == [10, 10, 5]
    assert list(chain(*pages)) == [f"f{n:02}" for n in reversed(range(25))]


async def test_the_last_page_says_that_there_is_no_more_also_when_it_is_full(log: ExecutionLog) -> None:
    for n in range(6):
        await log.create(new_flow(f"f{n}"))

    pages = await all_pages(log, FlowFilter(), 3)

    assert [len(page) for page in pages] == [3, 3]


async def test_a_page_may_be_larger_than_what_there_is(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    flows, after = await log.list(FlowFilter(), limit=1_000_000)

    assert (ids(flows), after) == (["f1"], None)


async def test_a_list_of_nothing_is_empty(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    flows, _ = await log.list(FlowFilter(), limit=0)

    assert flows == []


async def test_flows_are_listed_as_they_are_found(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log, "f1", tags=("b", "a"), version="v", timeout_seconds=9.0)
    await commit(
        log, Commit("f1", lease, (event(1),), settled=Settled(TaskStatus.FAILED, '{"x":1}', None, "r"))
    )
    await log.create(new_flow("f2", delay_seconds=60.0))

    flows, _ = await log.list(FlowFilter())

    assert flows == [await record(log, "f2"), await record(log, "f1")]


async def test_pages_merge_several_statuses_in_order(log: ExecutionLog) -> None:
    await register(log)
    for n in range(12):
        lease = await claimed_flow(log, f"f{n:02}")
        await settle(log, f"f{n:02}", lease, TaskStatus.COMPLETED if n % 2 else TaskStatus.FAILED)
    await log.create(new_flow("pending"))
    both = FlowFilter(statuses=(TaskStatus.FAILED, TaskStatus.COMPLETED))

    pages = await all_pages(log, both, 5)

    assert list(chain(*pages)) == [f"f{n:02}" for n in reversed(range(12))]


async def test_a_status_named_twice_is_asked_for_once(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    flows, _ = await log.list(FlowFilter(statuses=(TaskStatus.PENDING, TaskStatus.PENDING)))

    assert ids(flows) == ["f1"]


FILTERS = [
    (FlowFilter(names=("b",)), {"b1"}),
    (FlowFilter(names=("b", "order", "else")), {"a1", "a2", "b1", "c1"}),
    (FlowFilter(names=("else",)), set()),
    (FlowFilter(queue="gpu"), {"a2"}),
    (FlowFilter(queue="else"), set()),
    (FlowFilter(version="v1"), {"a2"}),
    (FlowFilter(id_prefix="a"), {"a1", "a2"}),
    (FlowFilter(id_prefix="a1"), {"a1"}),
    (FlowFilter(id_prefix="a1x"), set()),
    (FlowFilter(parent_id="a1"), {"c1"}),
    (FlowFilter(statuses=(TaskStatus.PAUSED,)), {"a1"}),
    (FlowFilter(statuses=(TaskStatus.PAUSED, TaskStatus.PENDING)), {"a1", "a2", "b1", "c1"}),
    (FlowFilter(tags=("x",)), {"a2", "b1"}),
    (FlowFilter(tags=("y", "x")), {"b1"}),
    (FlowFilter(tags=("z",)), set()),
    (FlowFilter(names=("b",), queue="gpu"), set()),
    (FlowFilter(names=("order",), queue="gpu", version="v1", tags=("x",), id_prefix="a"), {"a2"}),
    (FlowFilter(statuses=(TaskStatus.PAUSED,), names=("b",)), set()),
]


@pytest.mark.parametrize("where, expected", FILTERS, ids=[str(n) for n in range(len(FILTERS))])
async def test_each_filter_narrows_lists_and_counts_alike(
    log: ExecutionLog, where: FlowFilter, expected: set[str]
) -> None:
    for flow in (
        new_flow("a1"),
        new_flow("a2", queue="gpu", version="v1", tags=("x",)),
        new_flow("b1", name="b", tags=("x", "y")),
        new_flow("c1", parent_id="a1", parent_op="0:1"),
    ):
        await log.create(flow)
    await log.move("a1", TaskStatus.PAUSED)

    pages = await all_pages(log, where, 2)

    assert sorted(chain(*pages)) == sorted(expected)
    assert sum((await log.count(where)).values()) == len(expected)


async def test_lists_can_be_narrowed_by_the_time_of_creation(log: ExecutionLog) -> None:
    for id in ("f1", "f2", "f3"):
        await log.create(new_flow(id))
        await asyncio.sleep(0.003)
    created = [(await record(log, id)).created_at for id in ("f1", "f2", "f3")]
    middle = (created[0] + created[1]) / 2

    newer, _ = await log.list(FlowFilter(created_after=middle))
    older, _ = await log.list(FlowFilter(created_before=middle))
    between, _ = await log.list(
        FlowFilter(created_after=middle, created_before=(created[1] + created[2]) / 2)
    )

    assert (ids(newer), ids(older), ids(between)) == (["f3", "f2"], ["f1"], ["f2"])
    assert sum((await log.count(FlowFilter(created_after=middle))).values()) == 2


async def test_a_prefix_is_no_pattern(log: ExecutionLog) -> None:
    names = ["a%b", "axb", "a_b", "a*b", "a?b", "[a]b", "a\\b", "%", "_", "*"]
    for id in names:
        await log.create(new_flow(id))

    for prefix in ("a%", "a_", "a*", "a?", "[a]", "a\\", "%", "_", "*"):
        flows, _ = await log.list(FlowFilter(id_prefix=prefix))
        assert sorted(ids(flows)) == sorted(id for id in names if id.startswith(prefix))


async def test_a_prefix_ends_where_it_ends(log: ExecutionLog) -> None:
    for id in ("order", "order-1", "order-2", "orders", "Order-3", "order\U0010ffff"):
        await log.create(new_flow(id))

    flows, _ = await log.list(FlowFilter(id_prefix="order-"))

    assert sorted(ids(flows)) == ["order-1", "order-2"]


async def test_flows_created_while_pages_are_read_repeat_and_hide_none(log: ExecutionLog) -> None:
    for n in range(10):
        await log.create(new_flow(f"f{n}"))
    first, after = await log.list(FlowFilter(), limit=5)

    await log.create(new_flow("newer"))
    second, _ = await log.list(FlowFilter(), limit=100, after=after)

    assert ids(first + second) == [f"f{n}" for n in reversed(range(10))]


async def test_flows_deleted_while_pages_are_read_hide_no_other(log: ExecutionLog) -> None:
    for n in range(10):
        await log.create(new_flow(f"f{n}"))
        await log.move(f"f{n}", TaskStatus.CANCELLED)
    first, after = await log.list(FlowFilter(), limit=5)

    for id in (*ids(first)[-2:], "f2"):
        await log.delete(id)
    second, _ = await log.list(FlowFilter(), limit=100, after=after)

    assert ids(second) == ["f4", "f3", "f1", "f0"]


async def test_a_list_follows_what_became_of_the_flows(log: ExecutionLog) -> None:
    await register(log)
    for id in ("f1", "f2"):
        await log.create(new_flow(id))
    await claim_one(log, "f1")

    running, _ = await log.list(FlowFilter(statuses=(TaskStatus.RUNNING,)))
    pending, _ = await log.list(FlowFilter(statuses=(TaskStatus.PENDING,)))

    assert (ids(running), ids(pending)) == (["f1"], ["f2"])


async def test_a_list_read_while_others_are_written_is_whole(log: ExecutionLog) -> None:
    await register(log)

    async def write() -> None:
        await asyncio.gather(*(log.create(new_flow()) for _ in range(300)))

    async def read() -> None:
        for _ in range(20):
            flows, _ = await log.list(FlowFilter(), limit=500)
            assert all(flow.input == "{}" for flow in flows)
            assert len({flow.id for flow in flows}) == len(flows)
            await claim(log, limit=10)

    await asyncio.gather(write(), read())

    assert sum((await log.count(FlowFilter())).values()) == 300
