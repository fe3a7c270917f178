"""A cancel that was acknowledged stops the flow, also one that was asked before and went on."""

from __future__ import annotations

import asyncio

import pytest

from ergon import ExecutionLog, FlowCancelled, flow, step, wait_signal
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
