"""A step that is given to `gather` has no task of its own, and nobody can tell by its outcome."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.replay.rig import Rig, charge, replay, ship


def test_gathered_steps_need_no_task_and_have_the_ids_they_would_have_in_one() -> None:
    alone: list[int] = []

    async def by_gather() -> Any:
        both = asyncio.gather(charge(1), ship("x"))
        await asyncio.sleep(0)
        alone.append(len(asyncio.all_tasks()))
        return await both

    async def by_tasks() -> Any:
        return await asyncio.gather(asyncio.create_task(charge(1)), asyncio.create_task(ship("x")))

    gathered, tasks = Rig(by_gather), Rig(by_tasks)

    assert alone == [1], "only the flow's own"
    assert gathered.ids() == tasks.ids() == ["0/1:1", "0/2:1"]
    gathered.completes("ship", "shipped").completes("charge", "charged").land()
    assert gathered.result == ["charged", "shipped"]
    assert replay(by_tasks, gathered).result == gathered.result


def test_a_step_given_to_ensure_future_or_a_task_group_has_a_task() -> None:
    async def flow() -> Any:
        future = asyncio.ensure_future(charge(1))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(ship("x"), name="ships")
        return isinstance(future, asyncio.Task), task.get_name(), await future

    rig = Rig(flow).completes("charge", "charged").completes("ship").land()

    assert rig.result == (True, "ships", "charged")


@pytest.mark.parametrize("again", [asyncio.gather, asyncio.create_task])
def test_a_call_that_was_gathered_cannot_be_used_again(again: Any) -> None:
    async def flow() -> Any:
        call = charge(1)
        both = await asyncio.gather(call, call)
        with pytest.raises(RuntimeError, match="awaited before; call the step again"):
            again(call)
        return both

    rig = Rig(flow).completes("charge", "charged").land()

    assert rig.result == ["charged", "charged"], "in one gather it is one call, as any coroutine"


@pytest.mark.parametrize("return_exceptions", [True, False])
def test_a_gathered_step_fails_as_a_task_would(return_exceptions: bool) -> None:
    async def flow() -> Any:
        try:
            return await asyncio.gather(charge(1), ship("x"), return_exceptions=return_exceptions)
        except ValueError as error:
            return f"raised {error}", await ship("again")

    rig = Rig(flow).fails("charge", ValueError("no money")).land().completes("ship").land()

    if return_exceptions:
        assert [str(one) for one in rig.result] == ["no money", "done"]
    else:
        assert rig.asked() == ["ship"], "the other gathered step ended unseen, and another is asked for"
        assert rig.completes("ship").land().result == ("raised no money", "done")
    assert str(replay(flow, rig).result) == str(rig.result)
    assert rig.errors == []


def test_cancelling_a_gather_abandons_its_steps() -> None:
    async def flow() -> str:
        both = asyncio.gather(charge(1), ship("x"))
        await asyncio.sleep(1)
        both.cancel()
        try:
            await both
        except asyncio.CancelledError:
            return "cancelled"
        return "not cancelled"

    rig = Rig(flow).rings().land()

    assert rig.result == "cancelled"
    assert [op.name for op in rig.machine.take_abandoned()] == ["charge", "ship"]
    assert replay(flow, rig).result == "cancelled"
