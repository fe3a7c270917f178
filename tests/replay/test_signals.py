"""Signals: every value reaches exactly one wait, in order, whatever is cancelled meanwhile."""

from __future__ import annotations

import asyncio

import ergon
from tests.replay.rig import Rig, charge, replay


async def impatient() -> list[str]:
    """Waits for a charge or a signal, then for the signal again."""
    seen = []
    signal = asyncio.ensure_future(ergon.wait_signal("go", str))
    await charge(1)
    signal.cancel()
    await asyncio.sleep(0)
    seen.append("cancelled" if signal.cancelled() else signal.result())
    seen.append(await ergon.wait_signal("go", str))
    return seen


def test_a_wait_cancelled_between_commit_and_delivery_leaves_the_value_to_the_next_wait() -> None:
    rig = Rig(impatient).completes("charge").signal("go", "a").land()

    assert rig.result == ["cancelled", "a"]
    assert replay(impatient, rig).result == ["cancelled", "a"]


def test_a_wait_cancelled_at_the_moment_its_value_arrives_loses_nothing() -> None:
    async def flow() -> list[str]:
        first = asyncio.ensure_future(ergon.wait_signal("go", str))
        second = asyncio.ensure_future(ergon.wait_signal("other", str))
        await asyncio.sleep(0)
        # Runs before the first wait does, once both have their values: it cancels a wait that holds one.
        machine_box = asyncio.ensure_future(cancel_when_woken(first))
        await second
        await machine_box
        return [await ergon.wait_signal("go", str), await ergon.wait_signal("go", str)]

    async def cancel_when_woken(task: asyncio.Future[str]) -> None:
        await ergon.wait_signal("other", str)
        task.cancel()

    rig = Rig(flow)
    rig.signal("other", "x").signal("other", "y").signal("go", "a").land()
    rig.signal("go", "b").land()

    assert rig.result == ["a", "b"]
    assert replay(flow, rig).result == ["a", "b"]


def test_values_put_back_by_several_cancelled_waits_keep_their_order() -> None:
    async def flow() -> list[str]:
        waits = [asyncio.ensure_future(ergon.wait_signal("go", str)) for _ in range(3)]
        await asyncio.sleep(0)
        box = asyncio.get_running_loop().machine.mailboxes["go"]  # type: ignore[attr-defined]
        for payload in ('"a"', '"b"', '"c"'):
            box.arrive(payload)
        for wait in reversed(waits):
            wait.cancel()
        await asyncio.sleep(0)
        return [await ergon.wait_signal("go", str) for _ in range(3)]

    assert Rig(flow).result == ["a", "b", "c"]


def test_one_who_comes_later_cannot_take_a_value_from_one_who_waited_first() -> None:
    async def flow() -> dict[str, str]:
        seen = {}

        async def first() -> None:
            seen["first"] = await ergon.wait_signal("go", str)

        waits = asyncio.ensure_future(first())
        await asyncio.sleep(0)
        asyncio.get_running_loop().machine.mailboxes["go"].arrive('"a"')  # type: ignore[attr-defined]
        late = asyncio.ensure_future(ergon.wait_signal("go", str))
        late_has_run = asyncio.ensure_future(asyncio.sleep(0))
        await asyncio.wait([waits, late_has_run])
        late.cancel()
        return seen

    assert Rig(flow).result == {"first": "a"}


def test_waits_of_one_name_get_values_first_come_first_served() -> None:
    async def flow() -> list[str]:
        return await asyncio.gather(*(ergon.wait_signal("go", str) for _ in range(3)))

    rig = Rig(flow)
    assert rig.machine.wanted_signals() == {"go": 3}
    rig.signal("go", "a").signal("go", "b").land().signal("go", "c").land()

    assert rig.result == ["a", "b", "c"]
    assert replay(flow, rig).result == ["a", "b", "c"]
