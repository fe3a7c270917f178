"""Taking a flow out of memory: no durable operation, no error, no task left to the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

import ergon
from tests.replay.rig import Flow, Rig, charge, ship


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """asyncio logs a task that the collector finds pending; Python tells a hook what it cannot raise."""
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with caplog.at_level(logging.DEBUG, "asyncio"):
        yield
        gc.collect()
    assert [record.message for record in caplog.records if "destroyed" in record.message] == []
    assert unraisable == []


def evict(flow: Flow) -> Rig:
    rig = Rig(flow)
    tasks = asyncio.all_tasks(rig.machine.loop)
    rig.machine.take_requested()
    rig.machine.dismiss()
    assert rig.machine.take_requested() == []
    assert rig.machine.take_abandoned() == []
    assert rig.machine.pending == {}
    assert rig.machine.loop.tasks == {}
    assert rig.errors == []
    assert all(task.done() or not task._log_destroy_pending for task in tasks)  # type: ignore[attr-defined]
    return rig


async def waits_for_a_step() -> None:
    await charge(1)


async def waits_in_many_ways() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(5))
        group.create_task(ergon.wait_signal("go"))
        group.create_task(asyncio.wait_for(charge(1), 5))
        group.create_task(asyncio.wait_for(asyncio.shield(ship("book")), 5))
        group.create_task(asyncio.Lock().acquire())
        group.create_task(asyncio.Queue().get())
        await asyncio.gather(charge(2), charge(3))


async def compensates() -> None:
    try:
        await charge(1)
    finally:
        await ship("apology")
        await asyncio.sleep(1)
        await ergon.wait_signal("thanks")


async def raises_on_the_way_out() -> None:
    try:
        await charge(1)
    finally:
        raise ZeroDivisionError


async def exits_on_the_way_out() -> None:
    try:
        await charge(1)
    finally:
        sys.exit(3)


async def resists() -> None:
    while True:
        try:
            await charge(1)
        except asyncio.CancelledError:
            continue


async def spins_when_cancelled() -> None:
    try:
        await charge(1)
    finally:
        while True:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                continue


async def resists_even_being_closed() -> None:
    while True:
        try:
            await charge(1)
        except BaseException:
            continue


async def forgets_tasks() -> None:
    for _ in range(3):
        asyncio.get_running_loop().create_task(charge(1))
    await charge(2)


async def leaves_a_generator() -> None:
    async for _ in numbers():
        break
    kept = numbers()
    await anext(kept)
    await charge(1)
    await kept.aclose()


async def numbers() -> AsyncGenerator[int, None]:
    try:
        yield 1
        await charge(1)
        yield 2
    finally:
        await ship("from a generator")


async def inside_a_generator() -> None:
    async for _ in numbers():
        pass


@pytest.mark.parametrize(
    "flow",
    [
        waits_for_a_step,
        waits_in_many_ways,
        compensates,
        raises_on_the_way_out,
        exits_on_the_way_out,
        resists,
        spins_when_cancelled,
        resists_even_being_closed,
        forgets_tasks,
        leaves_a_generator,
        inside_a_generator,
    ],
    ids=lambda flow: flow.__name__,
)
def test_eviction_runs_nothing_durable_raises_nothing_and_leaves_nothing(flow: Flow) -> None:
    evict(flow)
    gc.collect()


def test_a_stopped_flow_leaves_no_task_that_was_about_to_run() -> None:
    """A task that never ran its first line, and one woken but not yet resumed, end as well."""

    async def before() -> None:
        await asyncio.gather(charge(1), charge(2))

    async def other() -> None:
        woken = asyncio.ensure_future(asyncio.sleep(0))
        mismatch = asyncio.ensure_future(ship("instead"))
        never_begins = asyncio.ensure_future(charge(1))
        await asyncio.wait([woken, mismatch, never_begins])

    history = Rig(before).completes("charge").land()
    history.machine.dismiss()
    rig = Rig(other, history.rows)
    assert rig.machine.stopped is not None

    rig.machine.dismiss()

    assert rig.machine.loop.tasks == {}


def test_a_flow_that_never_began_can_be_evicted() -> None:
    rig = Rig(waits_for_a_step)
    rig.machine.dismiss()
    rig.machine.dismiss()


def test_a_step_that_was_called_and_not_awaited_is_said_and_does_nothing() -> None:
    async def flow() -> str:
        charge(1)  # type: ignore[unused-coroutine]  # the mistake under test
        return "ended"

    with pytest.warns(RuntimeWarning, match="never awaited"):
        rig = Rig(flow)

    assert rig.result == "ended"
    assert rig.asked() == []
