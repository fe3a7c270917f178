"""The flow loop: repeatable walks, contexts, callbacks, and a stop to what never waits."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextvars import ContextVar
from typing import Any

import pytest

from ergon.errors import NotAllowedInFlow
from ergon.replay import loop as loop_module
from tests.replay.rig import Rig, charge, replay

colour: ContextVar[str] = ContextVar("colour", default="none")


def test_a_flow_that_spins_on_sleep_0_is_stopped_and_can_be_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def flow() -> None:
        while True:
            await asyncio.sleep(0)

    defaults = loop_module.FlowLoop.run_until_quiet.__defaults__
    assert defaults is not None
    assert defaults[0] >= 1_000_000
    monkeypatch.setattr(loop_module.FlowLoop.run_until_quiet, "__defaults__", (5_000,))

    rig = Rig(flow)

    assert isinstance(rig.machine.stopped, NotAllowedInFlow)
    assert "Wait for something durable" in str(rig.machine.stopped)
    rig.machine.dismiss()
    assert rig.machine.loop.tasks == {}


def test_concurrent_branches_of_two_steps_each_never_swap_their_results() -> None:
    async def branch(number: int) -> list[str]:
        return [await charge(0), await charge(0), str(number)]

    async def flow() -> list[list[str]]:
        return await asyncio.gather(*(branch(number) for number in range(4)))

    for order in ((3, 1, 0, 2), (2, 0, 3, 1), (0, 1, 2, 3)):
        rig = Rig(flow)
        for part in (1, 2):
            for number in order:
                op = rig.machine.pending[f"0/{number + 1}:{part}"]
                rig._announce(
                    "step_completed", op=op.id, name=op.name, digest=op.digest, payload=f'"{number}.{part}"'
                ).land()

        assert rig.result == [[f"{number}.1", f"{number}.2", str(number)] for number in range(4)]
        assert replay(flow, rig).result == rig.result


def walked(make: Any) -> list[list[str]]:
    """What three runs of a flow, each with other addresses, see of a set."""
    clutter, seen = [], []
    for _ in range(3):
        clutter.append([object() for _ in range(37)])
        rig = Rig(make)
        seen.append(rig.result)
        rig.machine.dismiss()
    return seen


def test_sets_of_tasks_gathers_and_futures_are_walked_in_a_repeatable_order() -> None:
    async def flow() -> list[str]:
        tasks = [asyncio.create_task(asyncio.sleep(5), name=f"task {number}") for number in range(40)]
        gathers = [asyncio.gather(task) for task in tasks[::3]]
        futures = [asyncio.get_running_loop().create_future() for _ in range(20)]
        names: dict[Any, str] = {task: task.get_name() for task in tasks}
        names |= {gathered: f"gather {number}" for number, gathered in enumerate(gathers)}
        names |= {future: f"future {number}" for number, future in enumerate(futures)}
        everything = {*tasks, *gathers, *futures}
        for task in tasks[::2]:
            everything.discard(task)
        return [names[one] for one in everything]

    first, *others = walked(flow)
    assert others == [first, first]
    assert len(first) == 20 + 14 + 20


def test_all_tasks_is_walked_in_a_repeatable_order_whatever_other_loops_hold() -> None:
    async def flow() -> list[str]:
        for number in range(50):
            asyncio.create_task(  # noqa: RUF006  # the loop keeps them
                asyncio.sleep(5), name=f"task {number}"
            )
        return [task.get_name() for task in asyncio.all_tasks()]

    others = [Rig(lambda: asyncio.sleep(5)) for _ in range(30)]
    first, *more = walked(flow)
    for rig in others:
        rig.machine.dismiss()

    assert more == [first, first]
    assert walked(flow)[0] == first


async def test_outside_flows_asyncio_is_as_it_was() -> None:
    task = asyncio.create_task(asyncio.sleep(0, "slept"))
    seen = [await following for following in asyncio.as_completed([task, asyncio.sleep(0, "too")])]
    condition = asyncio.Condition()
    async with condition, asyncio.TaskGroup() as group:
        group.create_task(notify(condition))
        await asyncio.wait_for(condition.wait(), 5)

    assert sorted(seen) == ["slept", "too"]
    assert asyncio.current_task() in asyncio.all_tasks()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.sleep(5), 0.01)


async def notify(condition: asyncio.Condition) -> None:
    async with condition:
        condition.notify()


def test_what_was_imported_from_asyncio_before_ergon_works_in_flows_too() -> None:
    code = """
from asyncio import all_tasks, as_completed, sleep, wait_for
import sys
assert "ergon" not in sys.modules
from tests.replay.rig import Rig, charge

async def branch(number):
    return [await charge(number), await wait_for(charge(number), 5)]

async def flow():
    async def late():
        return await charge(9)
    return [await following for following in as_completed(branch(number) for number in range(5))]

rig = Rig(flow)
assert rig.ids() == [f"0/{n}:1" for n in range(1, 6)], rig.ids()
for op in reversed(rig.ids()):
    asked = rig.machine.pending[op]
    rig._announce("step_completed", op=op, name=asked.name, digest=asked.digest, payload='"x"').land()
assert rig.ids() == [f"0/{n}:2" for n in range(5, 0, -1)], rig.ids()
rig.machine.dismiss()
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


@pytest.mark.parametrize("source", [list, tuple, iter, dict.fromkeys])
def test_as_completed_makes_tasks_in_the_order_its_coroutines_are_given(source: Any) -> None:
    async def named(name: str) -> str:
        return f"{name} {await charge(1)}"

    async def flow() -> list[str]:
        return [
            await following
            for following in asyncio.as_completed(source([named("a"), named("b"), named("c")]))
        ]

    rig = Rig(flow)
    assert rig.ids() == ["0/1:1", "0/2:1", "0/3:1"]
    for op in ("0/3:1", "0/1:1", "0/2:1"):
        asked = rig.machine.pending[op]
        rig._announce("step_completed", op=op, name="charge", digest=asked.digest, payload=f'"{op}"')
    rig.land()

    assert rig.result == ["c 0/3:1", "a 0/1:1", "b 0/2:1"]


def test_context_variables_are_the_flows_own_and_each_task_has_a_copy() -> None:
    async def child() -> str:
        before = colour.get()
        colour.set("blue")
        await charge(1)
        return f"{before} {colour.get()}"

    async def flow() -> list[str]:
        seen = [colour.get()]
        colour.set("red")
        seen.append(await asyncio.create_task(child()))
        seen.append(colour.get())
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: seen.append(f"callback {colour.get()}"))
        loop.call_later(1, lambda: seen.append(f"timer {colour.get()}"))
        colour.set("green")
        await asyncio.sleep(2)
        return seen

    token = colour.set("the host's")
    try:
        rig = Rig(flow).completes("charge").land().rings().land().rings().land()
    finally:
        colour.reset(token)

    assert rig.result == ["none", "red blue", "red", "callback red", "timer red"]


def test_an_error_in_a_callback_is_reported_and_the_flow_goes_on() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    async def flow() -> str:
        asyncio.get_running_loop().call_soon(fails)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "went on"

    rig = Rig(flow)

    assert rig.result == "went on"
    assert [type(context["exception"]) for context in rig.errors] == [ZeroDivisionError]


def test_a_callback_can_be_cancelled() -> None:
    async def flow() -> list[str]:
        seen: list[str] = []
        loop = asyncio.get_running_loop()
        loop.call_soon(seen.append, "kept")
        handle = loop.call_soon(seen.append, "cancelled")
        handle.cancel()
        due_now = loop.call_later(0, seen.append, "cancelled too")
        due_now.cancel()
        await asyncio.sleep(0)
        assert handle.cancelled()
        return seen

    assert Rig(flow).result == ["kept"]


def test_a_step_call_can_be_awaited_once() -> None:
    async def flow() -> None:
        call = charge(1)
        await call
        await call

    rig = Rig(flow).completes("charge").land()

    with pytest.raises(RuntimeError, match="awaited before"):
        _ = rig.result


def test_the_loop_looks_like_a_running_loop() -> None:
    async def flow() -> bool:
        loop = asyncio.get_running_loop()
        assert not loop.get_debug()
        loop.set_debug(True)
        repr(loop.call_soon(lambda: None))
        repr(loop.call_later(1, lambda: None))
        repr(asyncio.current_task())
        return loop.is_running() and not loop.is_closed() and not loop.get_debug()

    assert Rig(flow).result
