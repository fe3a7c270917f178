"""Code changes while flows are under way: patched changes go on, others park the flow with a diff."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from ergon import (
    ExecutionLog,
    Flow,
    FlowParked,
    deprecate_patch,
    flow,
    flow_type,
    patched,
    step,
    wait_signal,
)
from ergon.core.codec import digest
from tests.stories.helpers import start, until_status, worker

effects: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    effects.clear()


@step
async def charge(amount: int) -> str:
    effects.append(f"charge {amount}")
    return f"paid {amount}"


@step
async def check() -> None:
    effects.append("check")


@step
async def ship() -> str:
    effects.append("ship")
    return "shipped"


@flow(name="order")
async def first_version() -> str:
    await charge(1)
    await wait_signal("go")
    return await ship()


@flow(name="order")
async def patched_version() -> str:
    if patched("check-first"):
        await check()
    await charge(1)
    await wait_signal("go")
    if patched("say-so"):
        effects.append("said")
    return await ship()


@flow(name="order")
async def deprecated_version() -> str:
    deprecate_patch("check-first")
    await check()
    await charge(1)
    await wait_signal("go")
    return await ship()


@flow(name="order")
async def final_version() -> str:
    await check()
    await charge(1)
    await wait_signal("go")
    return await ship()


@flow(name="order")
async def other_arguments() -> str:
    await charge(2)
    await wait_signal("go")
    return await ship()


@flow(name="order")
async def other_order() -> str:
    await ship()
    await charge(1)
    await wait_signal("go")
    return await ship()


@flow(name="order")
async def shorter() -> str:
    return "done"


@flow(name="order")
async def timer_instead() -> str:
    await asyncio.sleep(3_600)
    return "done"


async def begun(log: ExecutionLog, version: Flow[[], Any]) -> Any:
    """A flow that has charged and waits."""
    handle = await start(log, version.bind())
    async with worker(log, version):
        await until_status(handle, "suspended")
    return handle


async def finished(log: ExecutionLog, version: Flow[[], Any], handle: Any) -> Any:
    await handle.signal("go")
    async with worker(log, version):
        return await handle.result(10)


async def test_a_flow_from_before_the_patch_takes_the_old_branch(log: ExecutionLog) -> None:
    handle = await begun(log, first_version)

    assert await finished(log, patched_version, handle) == "shipped"

    assert effects == ["charge 1", "said", "ship"], "the second patch lies ahead of it, so that one it takes"


async def test_a_flow_started_after_the_patch_takes_the_new_branch_on_every_replay(log: ExecutionLog) -> None:
    handle = await begun(log, patched_version)

    assert await finished(log, patched_version, handle) == "shipped"

    assert effects == ["check", "charge 1", "said", "ship"]


@pytest.mark.parametrize("later", [deprecated_version, final_version], ids=["deprecated", "removed"])
async def test_when_no_old_flow_is_left_the_patch_can_go(log: ExecutionLog, later: Flow[[], Any]) -> None:
    handle = await begun(log, patched_version)

    assert await finished(log, later, handle) == "shipped"

    assert effects == ["check", "charge 1", "ship"]


@pytest.mark.parametrize(
    "changed, told",
    [
        (other_arguments, ["charge", "other arguments"]),
        (other_order, ["charge", "ship", "test_changes.py:"]),
        (shorter, ["charge", "has ended"]),
        (timer_instead, ["charge", "timer"]),
    ],
    ids=["arguments", "order", "shorter", "timer"],
)
async def test_changed_code_parks_the_flow_with_a_diff_and_the_right_code_resumes_it(
    log: ExecutionLog, changed: Flow[[], Any], told: list[str]
) -> None:
    handle = await begun(log, first_version)
    await handle.signal("go")
    async with worker(log, changed):
        with pytest.raises(FlowParked) as caught:
            await handle.result(10)
        for part in told:
            assert part in str(caught.value)
        assert "is parked" in await handle.why()
    assert effects == ["charge 1"], "nothing of the changed code ran"

    async with worker(log, first_version):
        await handle.resume()

        assert await handle.result(10) == "shipped"

    assert effects == ["charge 1", "ship"]


@dataclass
class Order:
    id: str


@step
async def bill(order: Order, amount: int) -> str:
    return f"{order.id}: {amount}"


def named_in_class(name: str, value: Any) -> type:
    """What `class Till(Order): name = value` makes."""
    return type("Till", (Order,), {name: value})


async def test_a_step_of_a_module_is_still_known_by_all_its_arguments_when_a_class_names_it_too(
    log: ExecutionLog,
) -> None:
    """`charge = charge` in a class, anywhere in the program, says nothing of the calls without an object."""
    named_in_class("charge", charge)
    handle = await begun(log, first_version)

    await handle.signal("go")
    async with worker(log, other_arguments):
        with pytest.raises(FlowParked, match="charge"):
            await handle.result(10)

    assert [event.digest for event in await log.history("f") if event.name == "charge"] == [digest((1,), {})]


async def test_an_object_of_the_class_that_names_it_too_is_an_argument_like_others_for_a_step_of_a_module(
    log: ExecutionLog,
) -> None:
    till = named_in_class("bill", bill)

    @flow
    async def bills() -> str:
        return await bill(till("t-1"), 5)

    handle = await start(log, bills.bind())
    async with worker(log, bills):
        assert await handle.result(10) == "t-1: 5"

    (event,) = await log.history("f")
    assert event.digest == digest((till("t-1"), 5), {})


def not_wrapped(
    function: Callable[[Any, int], Coroutine[Any, Any, int]],
) -> Callable[[Any, int], Coroutine[Any, Any, int]]:
    """A decorator whose result does not say what it stands for."""

    async def called(self: Any, amount: int) -> int:
        return await function(self, amount)

    return called


async def test_a_step_of_a_class_is_known_by_its_arguments_without_the_object_however_it_is_called(
    log: ExecutionLog,
) -> None:
    """The histories that exist say so."""

    @flow_type
    @dataclass
    class Till:
        id: str

        @step
        async def pay(self, amount: int) -> int:
            return amount

        @step(name="wrapped")
        @not_wrapped
        async def wrapped(self, amount: int) -> int:
            return amount

        @flow
        async def run(self) -> list[Any]:
            return [
                await self.pay(1),
                await Till.pay(self, 2),
                await self.wrapped(3),
                await Till.wrapped(self, 4),
                await self.billed(5),
                await Till.billed(self, 6),
            ]

        billed: ClassVar[Any] = step(name="billed")(bill.function)

    handle = await start(log, Till("t-1").run.bind())
    async with worker(log, Till):
        assert await handle.result(10) == [1, 2, 3, 4, "t-1: 5", "t-1: 6"]

    digests = [event.digest for event in await log.history("f")]
    assert digests == [digest((amount,), {}) for amount in range(1, 7)]


async def test_code_of_branches_that_have_not_run_may_change_freely(log: ExecutionLog) -> None:
    @flow(name="order")
    async def longer() -> str:
        await charge(1)
        await wait_signal("go")
        await check()
        return f"{await ship()} and checked"

    handle = await begun(log, first_version)

    assert await finished(log, longer, handle) == "shipped and checked"


async def test_a_result_type_that_no_longer_fits_parks_the_flow(log: ExecutionLog) -> None:
    @step(name="load")
    async def load_text() -> str:
        return "text"

    @step(name="load")
    async def load_number() -> int:
        return 1

    @flow(name="order")
    async def old() -> str:
        found = await load_text()
        await wait_signal("go")
        return found

    @flow(name="order")
    async def new() -> str:
        found = await load_number()
        await wait_signal("go")
        return str(found)

    handle = await begun(log, old)
    await handle.signal("go")
    async with worker(log, new):
        with pytest.raises(FlowParked, match="no longer fits its annotation"):
            await handle.result(10)
    async with worker(log, old):
        await handle.resume()

        assert await handle.result(10) == "text"


async def test_an_input_that_no_longer_fits_parks_the_flow(log: ExecutionLog) -> None:
    @flow(name="order")
    async def old(amount: int) -> int:
        return amount

    @flow(name="order")
    async def new(amount: int, currency: str) -> int:
        return amount

    @flow(name="order")
    async def mended(amount: int, currency: str = "EUR") -> str:
        return f"{amount} {currency}"

    handle = await start(log, old.bind(4))
    async with worker(log, new):
        with pytest.raises(FlowParked, match="currency"):
            await handle.result(10)
    async with worker(log, mended):
        await handle.resume()
        await until_status(handle, "completed")

    assert (await handle.record()).output == '"4 EUR"'
