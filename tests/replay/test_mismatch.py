"""Code that no longer matches its history stops, and the message names both sides with their lines."""

from __future__ import annotations

import asyncio
import re

import pytest

import ergon
from ergon.errors import NonDeterminismError
from tests.replay.rig import Flow, Rig, charge, refund, replay, ship


async def two_steps() -> None:
    await charge(10)
    await ship("book")
    await charge(5)


def history_of_two_steps() -> Rig:
    return Rig(two_steps).completes("charge").land().completes("ship").land()


async def renamed_step() -> None:
    await charge(10)
    await charge(0)


async def other_arguments() -> None:
    await charge(11)


async def swapped_order() -> None:
    await ship("book")
    await charge(10)


async def removed_step() -> None:
    await charge(10)
    await charge(5)


async def added_step() -> None:
    await ship("ribbon")
    await charge(10)


async def early_return() -> None:
    await charge(10)


async def child_instead() -> None:
    await charge(10)
    await refund(10)


async def timer_instead() -> None:
    await charge(10)
    await asyncio.sleep(5)


async def signal_instead() -> None:
    await charge(10)
    await ergon.wait_signal("approval")


@pytest.mark.parametrize(
    "changed,expected,actual",
    [
        (renamed_step, "step `ship` as operation 0:2", "step `charge` as operation 0:2"),
        (other_arguments, "step `charge` as operation 0:1", "step `charge` as operation 0:1"),
        (swapped_order, "step `charge` as operation 0:1", "step `ship` as operation 0:1"),
        (removed_step, "step `ship` as operation 0:2", "step `charge` as operation 0:2"),
        (added_step, "step `charge` as operation 0:1", "step `ship` as operation 0:1"),
        (early_return, "step `ship` as operation 0:2", "nothing: the flow that begins at"),
        (child_instead, "step `ship` as operation 0:2", "child `refund` as operation 0:2"),
        (timer_instead, "step `ship` as operation 0:2", "timer as operation 0:t1"),
        (signal_instead, "step `ship` as operation 0:2", "signal `approval`"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_changed_code_stops_and_the_error_names_what_was_expected_and_what_was_asked(
    changed: Flow, expected: str, actual: str
) -> None:
    rig = replay(changed, history_of_two_steps())

    error = rig.machine.stopped
    assert isinstance(error, NonDeterminismError)
    assert error.expected.startswith(expected)
    assert error.actual.startswith(actual)
    assert re.search(r"\(test_mismatch\.py:\d+\)", error.expected)
    assert re.search(r"test_mismatch\.py:\d+", error.actual)
    rig.machine.dismiss()


def test_the_lines_in_the_message_are_the_lines_of_the_calls() -> None:
    rig = replay(renamed_step, history_of_two_steps())

    first = two_steps.__code__.co_firstlineno
    now = renamed_step.__code__.co_firstlineno
    assert f"test_mismatch.py:{first + 2})" in str(rig.machine.stopped)
    assert f"test_mismatch.py:{now + 2})" in str(rig.machine.stopped)


@pytest.mark.parametrize(
    "changed, renamed",
    [
        (renamed_step, True),
        (swapped_order, True),
        (other_arguments, False),
        (child_instead, False),
        (early_return, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_message_says_how_to_rename_a_step_and_what_to_use_for_chance_time_and_sets(
    changed: Flow, renamed: bool
) -> None:
    message = str(replay(changed, history_of_two_steps()).machine.stopped)

    assert ("was only renamed, keep its old name in the log: `@step(name=" in message) == renamed
    assert "use `ergon.random()` and `ergon.now()`, and sort what has no order of its own" in message


def test_other_arguments_are_called_that() -> None:
    assert "with other arguments" in str(replay(other_arguments, history_of_two_steps()).machine.stopped)


async def sleeps_first() -> None:
    await asyncio.sleep(5)
    await charge(1)


def test_a_removed_timer_is_found_and_the_line_that_waited_for_it_is_named() -> None:
    async def without_timer() -> None:
        await charge(1)

    rig = replay(without_timer, Rig(sleeps_first).rings().land())

    assert isinstance(rig.machine.stopped, NonDeterminismError)
    line = sleeps_first.__code__.co_firstlineno + 1
    assert f"timer as operation 0:t1 (test_mismatch.py:{line})" in rig.machine.stopped.expected
    assert "step `charge` as operation 0:1" in rig.machine.stopped.actual


def test_a_removed_wait_for_a_signal_is_found_even_when_the_flow_waits_for_that_name_elsewhere() -> None:
    async def waits_twice() -> None:
        await asyncio.gather(ergon.wait_signal("go"), ergon.wait_signal("go"))
        await charge(1)

    async def waits_once() -> None:
        await ergon.wait_signal("go")
        await charge(1)

    rig = replay(waits_once, Rig(waits_twice).signal("go", "a").signal("go", "b").land())

    assert isinstance(rig.machine.stopped, NonDeterminismError)
    assert rig.machine.stopped.expected.startswith("signal `go`")


def test_nothing_of_the_flow_runs_after_the_mismatch() -> None:
    ran = []

    async def other_branch() -> None:
        ran.append("other branch")

    async def starts_a_task_too() -> None:
        await charge(10)
        mismatch = asyncio.ensure_future(charge(0))
        other = asyncio.ensure_future(other_branch())
        await asyncio.gather(mismatch, other)

    async def before() -> None:
        await charge(10)
        await asyncio.gather(ship("book"))

    rig = replay(starts_a_task_too, Rig(before).completes("charge").land().completes("ship").land())

    assert rig.machine.stopped is not None
    assert ran == []
    rig.machine.dismiss()


def test_a_parked_flow_goes_on_when_its_code_matches_again() -> None:
    history = history_of_two_steps()
    assert replay(renamed_step, history).machine.stopped is not None

    rig = replay(two_steps, history)

    assert rig.machine.stopped is None
    assert rig.asked() == ["charge"]
