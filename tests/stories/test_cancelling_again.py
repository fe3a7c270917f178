"""A cancel that was acknowledged stops the flow, also one that was asked before and went on."""

from __future__ import annotations

import asyncio

import pytest

from ergon import ExecutionLog, FlowCancelled, RetryPolicy, Scheduler, flow, invoke, step, wait_signal
from ergon.flows.context import need_machine
from tests.stories.helpers import kinds, start, until, until_status, worker


async def test_a_flow_that_failed_to_clean_up_and_is_tried_again_can_be_cancelled_again(
    log: ExecutionLog,
) -> None:
    steps: list[int] = []
    clean_up_fails = True

    @step
    async def work(number: int) -> None:
        steps.append(number)
        await wait_signal("next")

    @flow
    async def process() -> None:
        try:
            for number in range(8):
                await work(number)
        except asyncio.CancelledError:
            if clean_up_fails:
                raise ValueError("cleaning up failed") from None
            raise

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until(lambda: steps == [0])
        await handle.cancel("first")
        with pytest.raises(ValueError, match="cleaning up failed"):
            await handle.result(10)
        clean_up_fails = False
        await handle.retry()
        await until(lambda: steps == [0, 0])
        await handle.cancel("second")

        with pytest.raises(FlowCancelled, match="second"):
            await handle.result(10)

    assert steps == [0, 0]


async def test_a_flow_that_went_on_after_a_cancel_is_interrupted_by_the_next_one(log: ExecutionLog) -> None:
    """Live, and after another worker has replayed the first."""

    @flow
    async def stubborn() -> list[str]:
        heard = []
        for name in ("first", "second"):
            try:
                await wait_signal(name)
            except asyncio.CancelledError:
                heard.append(name)
        return heard

    async with worker(log, stubborn):
        handle = await start(log, stubborn.bind())
        await until_status(handle, "suspended")
        await handle.cancel("one")
        await until(lambda: has(log, "cancel_requested"))
        await until_status(handle, "suspended")
    async with worker(log, stubborn):
        await handle.cancel("two")

        assert await handle.result(10) == ["first", "second"]


async def test_cancels_that_a_flow_has_not_heard_yet_interrupt_it_once(log: ExecutionLog) -> None:
    """Somebody who asks twice does not want to break off the cleaning up."""
    cleaned: list[str] = []

    @step
    async def clean() -> None:
        cleaned.append("clean")

    @flow
    async def process() -> None:
        try:
            await wait_signal("go")
        finally:
            await clean()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "suspended")
    for _ in range(3):
        await handle.cancel("enough")
    async with worker(log, process):
        with pytest.raises(FlowCancelled):
            await handle.result(10)

    assert cleaned == ["clean"]
    assert (await kinds(log)).count("cancel_requested") == 1


async def tidy() -> None:
    await wait_signal("first")
    await wait_signal("second")


class Tidy:
    async def __aenter__(self) -> None: ...
    async def __aexit__(self, *_: object) -> None:
        await tidy()


async def in_with() -> None:
    async with Tidy():
        await wait_signal("never")


async def in_except() -> None:
    try:
        await wait_signal("never")
    except asyncio.CancelledError as error:
        await tidy()
        raise error from None


async def in_finally() -> None:
    try:
        await wait_signal("never")
    finally:
        await tidy()


async def in_task() -> None:
    await asyncio.create_task(in_finally())


async def in_gather() -> None:
    await asyncio.gather(in_finally(), asyncio.Event().wait(), return_exceptions=True)
    raise asyncio.CancelledError


async def in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(in_finally())


WAYS = {"finally": in_finally, "except": in_except, "with": in_with}
WAYS |= {"task": in_task, "gather": in_gather, "group": in_group}


@pytest.mark.parametrize("way", WAYS)
async def test_a_cancel_that_comes_while_the_flow_cleans_up_breaks_nothing_off(
    log: ExecutionLog, way: str
) -> None:
    """A client that repeats its call after a lost answer must not undo half of the undoing."""

    @flow
    async def process() -> None:
        await WAYS[way]()

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "suspended")
        await handle.cancel("one")
        await until(lambda: has(log, "cancel_requested"))
        await handle.cancel("two")
        await handle.signal("first")
        await until(lambda: has(log, "signal_received"))
        await until_status(handle, "suspended")
    await handle.cancel("three")
    async with worker(log, process):
        await handle.signal("second")
        with pytest.raises(FlowCancelled, match="one"):
            await handle.result(10)

    assert (await kinds(log)).count("cancel_requested") == 1
    assert (await kinds(log)).count("signal_received") == 2


async def test_a_cancel_that_came_while_the_flow_cleaned_up_reaches_it_when_it_goes_on(
    log: ExecutionLog,
) -> None:
    """A cancellation that is kept under a name is over: what counts is what is being handled."""

    @flow
    async def process() -> str:
        kept = None
        try:
            await wait_signal("never")
        except asyncio.CancelledError as error:
            kept = error
            await wait_signal("cleaned")
        await wait_signal("never")
        return f"went on after {kept}"

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "suspended")
        await handle.cancel("one")
        await until(lambda: has(log, "cancel_requested"))
        await handle.cancel("two")
        await handle.signal("cleaned")

        with pytest.raises(FlowCancelled, match="two"):
            await handle.result(10)


async def test_nothing_is_started_while_a_further_cancel_is_on_its_way_to_the_flow(log: ExecutionLog) -> None:
    started: list[str] = []

    @step
    async def work(name: str) -> None:
        started.append(name)

    @flow
    async def process() -> None:
        for name in ("a", "b"):
            try:
                await wait_signal(name)
            except asyncio.CancelledError:
                continue
            await work(name)

    async with worker(log, process):
        handle = await start(log, process.bind())
        await until_status(handle, "suspended")
        await handle.cancel()
        await until(lambda: has(log, "cancel_requested"))
    await handle.signal("b")
    await handle.cancel()
    async with worker(log, process):
        await handle.wait_settled(10)

    assert started == [], "the signal came first, but the cancel was acknowledged before the step could start"


async def has(log: ExecutionLog, kind: str) -> bool:
    return kind in await kinds(log)


async def test_a_child_that_outlived_one_cancel_is_cancelled_by_the_next_attempt_of_its_parent(
    log: ExecutionLog,
) -> None:
    """Each attempt may wait for it, and stop waiting; a replay of one says nothing new."""

    @flow
    async def child() -> None:
        for _ in range(2):
            try:
                await wait_signal("never")
            except asyncio.CancelledError:
                continue

    @flow(retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.01))
    async def parent() -> None:
        try:
            async with asyncio.timeout(0.1):
                await invoke(child.bind(), id="child").result()
        finally:
            await wait_signal(f"end of attempt {need_machine('this').attempt}")

    async def heard() -> bool:
        return "cancel_requested" in await kinds(log, "child")

    async with worker(log, parent, child):
        handle = await start(log, parent.bind())
        await until(heard)
        await handle.signal("end of attempt 1")
        await Scheduler(log).handle("child").result(10)

        assert str(await handle.status()) in ("running", "suspended"), "its parent has not ended"
