"""Why a flow was cancelled is kept with it, whoever did it and however far the flow had come."""

from __future__ import annotations

import pytest

from ergon import ExecutionLog, FlowCancelled, ScheduleOptions, Scheduler, flow, invoke, wait_signal
from tests.stories.conftest import SettableClock
from tests.stories.helpers import start, until_status, worker


@flow
async def waits() -> None:
    await wait_signal("go")


@flow
async def parent() -> None:
    await invoke(waits.bind(), id="child").result()


@flow
async def grandparent() -> None:
    await invoke(parent.bind(), id="parent").result()


@flow
async def leaves() -> None:
    """Returns while its child still waits."""
    invoke(waits.bind(), id="child")
    await wait_signal("leave")


async def test_a_flow_that_never_started_keeps_the_reason(log: ExecutionLog) -> None:
    delayed = await start(log, waits.bind(), "delayed", delay=3_600)
    ready = await start(log, waits.bind(), "ready")
    silent = await start(log, waits.bind(), "silent")
    await delayed.cancel("customer left")
    await ready.cancel('say "no"\n')
    await silent.cancel()

    assert (await delayed.record()).reason == "customer left"
    assert (await ready.record()).reason == 'say "no"\n'
    assert (await silent.record()).reason == "cancelled before it started"
    assert (await delayed.why()).endswith("(customer left)")
    with pytest.raises(FlowCancelled, match="customer left"):
        await delayed.result(10)


async def test_a_flow_that_has_started_keeps_the_reason(log: ExecutionLog) -> None:
    handle = await start(log, waits.bind())
    async with worker(log, waits):
        await until_status(handle, "suspended")
        await handle.cancel("customer left")
        await until_status(handle, "cancelled")

    assert (await handle.record()).reason == "customer left"
    assert (await handle.why()).endswith("(customer left)")


async def test_a_deadline_that_passed_is_the_reason(log: ExecutionLog, clock: SettableClock) -> None:
    async with worker(log, waits):
        handle = await start(log, waits.bind(), options=ScheduleOptions(timeout=60))
        await until_status(handle, "suspended")
        clock.pass_time(61)
        await until_status(handle, "cancelled")

    assert (await handle.record()).reason == "its deadline passed"
    assert (await handle.why()).endswith("(its deadline passed)")


@pytest.mark.parametrize("act", ["cancel", "kill"])
async def test_the_children_of_a_cancelled_flow_are_told_why_it_was(log: ExecutionLog, act: str) -> None:
    """Also theirs, which are told of the first flow's reason and not of a chain of parents."""
    async with worker(log, waits, parent, grandparent):
        handle = await start(log, grandparent.bind())
        middle, child = (Scheduler(log).handle(flow_id) for flow_id in ("parent", "child"))
        for each in (handle, middle, child):
            await until_status(each, "suspended")
        await getattr(handle, act)("customer left")
        for each in (handle, middle, child):
            await until_status(each, "cancelled")

        assert (await handle.record()).reason == "customer left"
        assert (await middle.record()).reason == "its parent was cancelled: customer left"
        assert (await child.record()).reason == "its parent was cancelled: customer left"


async def test_a_child_that_its_parent_leaves_behind_is_told_how_the_parent_ended(log: ExecutionLog) -> None:
    async with worker(log, waits, leaves):
        handle = await start(log, leaves.bind())
        child = Scheduler(log).handle("child")
        await until_status(handle, "suspended")
        await until_status(child, "suspended")
        await handle.signal("leave")
        await until_status(child, "cancelled")

        assert (await child.record()).reason == "its parent completed"


async def test_a_parent_hears_why_its_child_was_stopped(log: ExecutionLog) -> None:
    """Also when no code of the child ran in the end, which then has no error of its own to tell."""

    @flow
    async def asks() -> str:
        try:
            await invoke(waits.bind(), id="child", queue="nobody").result()
        except FlowCancelled as error:
            return str(error)
        return ""

    async with worker(log, asks):
        handle = await start(log, asks.bind())
        await until_status(handle, "suspended")
        await Scheduler(log).handle("child").cancel("out of stock")

        assert await handle.result(10) == "flow 'child' was cancelled: out of stock"
