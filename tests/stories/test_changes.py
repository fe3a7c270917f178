"""Code changes while flows are under way: patched changes go on, others park the flow with a diff."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ergon import ExecutionLog, Flow, FlowParked, deprecate_patch, flow, patched, step, wait_signal
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
