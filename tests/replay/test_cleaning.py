"""A flow that was cancelled cleans up until what it asks for has nothing to do with the cancellation any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

import ergon
from ergon.replay.cleaning import cleans_up
from tests.replay.rig import Flow, Rig, charge, replay, ship


def is_cleaning_up(rig: Rig) -> bool:
    return cleans_up(rig.machine.loop.tasks.values())


def assert_cleans_up(expected: bool, flow: Flow, rig: Rig) -> None:
    """Live, and in a replay of the same history."""
    assert is_cleaning_up(rig) is expected
    assert is_cleaning_up(replay(flow, rig)) is expected


def test_a_flow_that_was_never_cancelled_does_not_clean_up() -> None:
    async def flow() -> None:
        try:
            await charge()
        finally:
            await ship()

    rig = Rig(flow).completes("charge").land()

    assert rig.asked() == ["ship"]
    assert_cleans_up(False, flow, rig)


async def in_except() -> None:
    try:
        await charge()
    except asyncio.CancelledError:
        await ship()


async def in_finally() -> None:
    try:
        await charge()
    finally:
        await ship()


async def in_tasks() -> None:
    try:
        await charge()
    finally:
        await asyncio.gather(charge(2), ship())


async def in_a_function_with_a_time_limit() -> None:
    async def undo() -> None:
        async with asyncio.timeout(60):
            await ship()

    try:
        await charge()
    finally:
        await undo()


async def in_a_context_manager() -> None:
    @contextlib.asynccontextmanager
    async def shipped_back() -> AsyncIterator[None]:
        try:
            yield
        finally:
            await ship()

    async with shipped_back():
        await charge()


async def after_an_error_of_its_own() -> None:
    try:
        try:
            await charge()
        finally:
            raise ValueError("the clean-up failed")
    except ValueError:
        await ship()


async def in_a_task_that_the_flow_waits_for() -> None:
    await asyncio.create_task(in_finally())


@pytest.mark.parametrize(
    "flow",
    [
        in_except,
        in_finally,
        in_tasks,
        in_a_function_with_a_time_limit,
        in_a_context_manager,
        after_an_error_of_its_own,
        in_a_task_that_the_flow_waits_for,
    ],
)
def test_a_cancelled_flow_cleans_up(flow: Flow) -> None:
    rig = Rig(flow).cancel().land()

    assert "ship" in rig.asked()
    assert_cleans_up(True, flow, rig)


def test_it_still_cleans_up_after_a_time_limit_of_the_cleaning_up_is_over() -> None:
    async def flow() -> None:
        try:
            await charge()
        finally:
            try:
                async with asyncio.timeout(60):
                    await charge(2)
            except TimeoutError:
                await ship()

    rig = Rig(flow).cancel().land().rings().land()

    assert rig.asked() == ["ship"]
    assert_cleans_up(True, flow, rig)


async def goes_on_with_a_step() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await charge()
    await ship()


async def goes_on_to_wait() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await charge()
    await ergon.wait_signal("ship")


async def goes_on_to_sleep() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await charge()
    await asyncio.sleep(60)


async def goes_on_in_a_task() -> None:
    await asyncio.create_task(goes_on_with_a_step())


async def goes_on_with_a_queue() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await charge()
    await asyncio.Queue[str]().get()


async def goes_on_with_tasks() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await charge()
    await asyncio.gather(ship(), charge(2))


@pytest.mark.parametrize(
    "flow",
    [
        goes_on_with_a_step,
        goes_on_to_wait,
        goes_on_to_sleep,
        goes_on_with_tasks,
        goes_on_in_a_task,
        goes_on_with_a_queue,
    ],
)
def test_a_flow_that_swallows_a_cancel_and_asks_for_more_has_gone_on(flow: Flow) -> None:
    rig = Rig(flow).cancel().land()

    assert_cleans_up(False, flow, rig)


def test_a_flow_that_goes_on_after_a_time_limit_of_its_own_has_gone_on() -> None:
    """A time limit is a CancelledError too, but nobody asked the flow to stop."""

    async def flow() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await charge()
        try:
            async with asyncio.timeout(60):
                await charge(2)
        except TimeoutError:
            await ship()

    rig = Rig(flow).cancel().land().rings().land()

    assert rig.asked() == ["ship"]
    assert_cleans_up(False, flow, rig)


def test_a_flow_that_went_on_and_is_cancelled_again_cleans_up_again() -> None:
    async def flow() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await charge()
        await in_finally()

    rig = Rig(flow).cancel().land().cancel().land()

    assert rig.asked() == ["ship"]
    assert_cleans_up(True, flow, rig)
