"""Tags route flows to workers that have what they need."""

from __future__ import annotations

import pytest

from ergon import ExecutionLog, Executor, FlowFilter, InvalidName, Scheduler, flow, invoke
from ergon.executor.outcome import Completed
from tests.stories.helpers import start, until, worker

NOBODY = "no live worker that takes from queue `default`"


@flow(tags=("gpu",))
async def render() -> str:
    return "rendered"


@flow
async def plain() -> str:
    return "plain"


@flow
async def film() -> list[str]:
    one = invoke(render.bind(), id="one")
    other = invoke(plain.bind(), id="other", tags=["big"])
    return [await one.result(), await other.result()]


@pytest.mark.every_log
async def test_a_flow_with_a_tag_waits_for_a_worker_that_has_it(log: ExecutionLog) -> None:
    async with worker(log, render, plain):
        tagged = await start(log, render.bind(), "tagged")
        other = await start(log, plain.bind(), "other")
        assert await other.result(timeout=10) == "plain"
        assert str(await tagged.status()) == "pending"

        async with worker(log, render, tags=["gpu"]):
            assert await tagged.result(timeout=10) == "rendered"


async def test_the_tags_given_when_a_flow_is_started_replace_the_declared_ones(log: ExecutionLog) -> None:
    scheduler = Scheduler(log)
    await scheduler.schedule(render.bind(), id="declared")
    await scheduler.schedule(render.bind(), id="replaced", tags=["b", "a", "b"])
    await scheduler.schedule(render.bind(), id="none", tags=())
    await scheduler.schedule_named("render", {}, id="named", tags=["gpu"])

    flows, _ = await scheduler.list()

    assert {one.id: one.tags for one in flows} == {
        "declared": ("gpu",),
        "replaced": ("a", "b"),
        "none": (),
        "named": ("gpu",),
    }
    assert [one.id for one in (await scheduler.list(FlowFilter(tags=("gpu",))))[0]] == ["named", "declared"]


async def test_children_go_where_their_own_tags_send_them(log: ExecutionLog) -> None:
    async with worker(log, film, render, plain):
        handle = await start(log, film.bind())

        async def children() -> bool:
            return (await log.find("one")) is not None and (await log.find("other")) is not None

        await until(children)
        async with worker(log, render, plain, tags=["big", "gpu"]):
            assert await handle.result(timeout=10) == ["rendered", "plain"]

    one, other = await log.find("one"), await log.find("other")
    assert one is not None
    assert other is not None
    assert (one.tags, other.tags) == (("gpu",), ("big",))


async def test_an_executor_runs_a_flow_with_tags_here_and_records_them(log: ExecutionLog) -> None:
    outcome = await Executor(render.bind(), log, "f").run()

    record = await log.find("f")
    assert outcome == Completed("rendered")
    assert record is not None
    assert record.tags == ("gpu",)


async def test_why_names_the_tag_that_no_live_worker_has(log: ExecutionLog) -> None:
    one = await start(log, render.bind(), "one")
    both = await start(log, render.bind(), "both", tags=["gpu", "big"])
    async with worker(log, render, tags=["small"]):
        assert f"is ready, but {NOBODY} has tag `gpu` (they have: small)" in await one.why()
        assert f"{NOBODY} has all of the tags `big`, `gpu` (they have: small)" in await both.why()
        async with worker(log, render, tags=["big"]):
            assert f"{NOBODY} has tag `gpu` (they have: big, small)" in await both.why()


async def test_why_says_so_when_each_tag_is_somebodys_but_nobody_has_all(log: ExecutionLog) -> None:
    both = await start(log, plain.bind(), tags=["gpu", "big"])
    async with worker(log, plain, tags=["big"]), worker(log, plain, tags=["gpu"]):
        assert f"{NOBODY} has all of the tags `big`, `gpu` (they have: big, gpu)" in await both.why()


@pytest.mark.parametrize("tags", ["gpu", ("",), (" gpu",), (7,)])
async def test_what_is_no_tag_is_refused_where_it_is_written(log: ExecutionLog, tags: object) -> None:
    with pytest.raises(InvalidName, match="flow tag"):
        flow(tags=tags)(plain.function)  # type: ignore[call-overload]
    with pytest.raises(InvalidName, match="flow tag"):
        await Scheduler(log).schedule(plain.bind(), tags=tags)  # type: ignore[call-overload]
    with pytest.raises(InvalidName, match="worker tag"):
        worker(log, plain, tags=tags)
