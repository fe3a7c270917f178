"""Conformance: a flow with tags goes only to a worker that has all of them."""

from __future__ import annotations

import pytest

from ergon.core.commit import FlowFilter
from ergon.core.status import TaskStatus
from tests.storage.kit import claim, new_flow, register

SETS = {
    "plain": (),
    "gpu": ("gpu",),
    "big": ("big",),
    "both": ("big", "gpu"),
    "five": ("a", "b", "big", "c", "gpu"),
}


def ids(flows):
    return {getattr(one, "flow", one).id for one in flows}


@pytest.mark.parametrize("versions", [None, ("v1",), (">=0.1",)], ids=["any", "exact", "range"])
@pytest.mark.parametrize(
    "tags, expected",
    [
        ((), {"plain"}),
        (("gpu",), {"plain", "gpu"}),
        (("gpu", "big"), {"plain", "gpu", "big", "both"}),
        (("gpu", "x", "y", "z"), {"plain", "gpu"}),
        (("gpu", "c", "b", "a", "big", "z"), set(SETS)),
        (("gp", 'gpu"', "GPU"), {"plain"}),
    ],
    ids=["none", "one", "two", "four", "more", "alike"],
)
async def test_a_worker_gets_the_flows_whose_tags_it_has(log, tags, expected, versions):
    await register(log, tags=tags)
    for id, flow_tags in SETS.items():
        await log.create(new_flow(id, tags=flow_tags))

    assert ids(await claim(log, tags=tags, versions=versions)) == expected


async def test_tags_and_versions_narrow_together(log):
    await register(log)
    for version in ("1.0", "2.0", None):
        for name, tags in (("gpu", ("gpu",)), ("plain", ())):
            await log.create(new_flow(f"{name}-{version}", version=version, tags=tags))

    assert ids(await claim(log, versions=(">=2",))) == {"plain-2.0", "plain-None"}
    assert ids(await claim(log, versions=("1.0",), tags=("gpu",))) == {"gpu-1.0", "plain-1.0", "gpu-None"}
    assert ids(await claim(log, tags=("gpu",))) == {"gpu-2.0"}


async def test_priority_holds_across_sets_of_tags(log, clock):
    await register(log)
    for id, priority, tags in [("a", 0, ("gpu",)), ("b", 2, ()), ("c", 1, ("big",)), ("d", 1, ("gpu",))]:
        await log.create(new_flow(id, priority=priority, tags=tags))
        clock.advance(1)

    claimed = [one.flow.id for _ in range(2) for one in await claim(log, tags=("gpu", "big"), limit=2)]

    assert claimed == ["b", "c", "d", "a"]


async def test_a_flow_keeps_its_tags_sorted_and_each_once(log):
    await log.create(new_flow("f", tags=("gpu", "big", "gpu")))

    assert (await log.find("f")).tags == ("big", "gpu")
    assert (await log.list(FlowFilter()))[0][0].tags == ("big", "gpu")


async def test_a_worker_row_has_its_tags(log):
    await register(log, tags=("gpu", "big"))

    (found,) = await log.workers()

    assert found.tags == ("gpu", "big")


async def test_an_executor_takes_its_own_flow_whatever_its_tags(log):
    await register(log)
    await log.create(new_flow("f", tags=("gpu",)))

    assert ids(await claim(log, flow_id="f")) == {"f"}


async def test_a_flow_that_wakes_keeps_its_tags(log, clock):
    await register(log)
    await log.create(new_flow("later", tags=("gpu",), delay_seconds=10.0))
    clock.advance(10)

    assert await claim(log) == []
    assert (await log.find("later")).status is TaskStatus.PENDING
    assert ids(await claim(log, tags=("gpu",))) == {"later"}


async def test_lists_and_counts_can_be_narrowed_to_flows_with_all_of_some_tags(log):
    for id, tags in SETS.items():
        await log.create(new_flow(id, tags=tags))

    async def listed(*tags):
        return ids((await log.list(FlowFilter(tags=tags)))[0])

    assert await listed() == set(SETS)
    assert await listed("gpu") == {"gpu", "both", "five"}
    assert await listed("gpu", "big") == {"both", "five"}
    assert await listed("gp") == set()
    assert await log.count(FlowFilter(tags=("big",))) == {TaskStatus.PENDING: 3}
