"""A client in a process of its own is killed around its calls and repeats them: once is once."""

from __future__ import annotations

import pytest

from tests.crash.test_two_workers import Town, town

__all__ = ["town"]

POINTS = [f"{name}:1:{when}" for name in ("create", "send") for when in ("pre", "post")]


@pytest.mark.parametrize("point", POINTS)
def test_a_client_killed_at_a_call_repeats_it_and_nothing_happens_twice(point: str, town: Town) -> None:
    """Killed before, the call did nothing. Killed after, it was done and nobody heard: the key tells the repeat."""
    worker = town.start("shared-signal", "worker", "worker")
    killed = town.start("shared-signal", "client", "client", failpoint=point)
    assert killed.wait(30) == -9, town
    again = town.start("shared-signal", "client", "again")

    assert again.wait(30) == 0, town

    town.drain(worker)
    rows = town.now()
    assert list(rows.flows) == ["f"]
    assert [message["key"] for message in rows.inbox] == ["k1"]
    assert [event["kind"] for event in rows.events["f"]].count("signal_received") == 1
    town.verdict("shared-idle")
