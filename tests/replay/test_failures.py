"""Failures on record reach the flow as its `await` can raise them."""

from __future__ import annotations

import pytest

from tests.replay.rig import Rig, charge, replay


async def waits_for_its_charge() -> str:
    try:
        return await charge(1)
    except RuntimeError as error:
        return f"{error.__cause__!r}"


@pytest.mark.parametrize("again", [False, True], ids=["live", "in a replay"])
def test_a_recorded_stop_iteration_reaches_the_flow_as_a_coroutine_turns_it(*, again: bool) -> None:
    """No future takes the error itself. A flow with such a history was parked at each resume."""
    rig = Rig(waits_for_its_charge).fails("charge", StopIteration(3)).land()
    if again:
        rig = replay(waits_for_its_charge, rig)

    assert rig.result == "StopIteration(3)"
