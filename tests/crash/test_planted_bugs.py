"""The harness can fail: every planted bug turns it red."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.crash import test_two_workers as two
from tests.crash.crashing import Case, Crasher
from tests.crash.planted import BUGS

# For each bug a scenario and the points at which it must show, most likely first.
ONE_PROCESS = {
    "result_delivered_before_durable": ("sequential", "begin:2", "begin:3", "commit:2:pre"),
    "start_not_durable_before_body": ("at-most-once", "begin:2", "end:2", "commit:2:pre"),
    "acknowledged_before_commit": ("sequential", "begin:2", "begin:3"),
    "schedule_acknowledged_early": ("queue", "create:1:pre", "create:2:pre"),
    "timers_fire_early": ("timer", ""),
    "signal_consumed_after_its_event": ("signal", "commit:2:post", "begin:2", "commit:3:post"),
    "signal_consumed_before_its_event": ("signal", "commit:2:pre", "commit:3:pre", "commit:4:pre"),
    "child_with_a_random_id": ("children", "commit:1:post", "claim:2:post", "claim:3:post", "commit:2:pre"),
    "stranger_cancelled": ("children-by-id", ""),
    "attempts_forgotten": ("retries", "commit:1:post", "begin:2", "begin:3"),
    "history_read_too_early": ("sequential", "commit:2:post", "begin:3"),
    "flows_of_the_dead_forgotten": ("sequential", "begin:1"),
    "cancel_forgotten": ("cancel", "begin:2"),
    "signal_key_ignored": ("signal", "", "send:1:post"),
    "history_rewritten": ("sequential", "begin:3"),
}
TWO_WORKERS = {
    "no_fence": two.test_an_owner_that_wakes_up_while_the_other_runs_the_same_step_is_refused,
    "epoch_not_raised": two.test_an_owner_frozen_in_a_step_body_is_overtaken_and_its_result_refused,
    "renewal_revives_the_dead": two.test_an_owner_frozen_in_a_step_body_is_overtaken_and_its_result_refused,
    "lost_lease_unspoken": two.test_an_owner_frozen_in_a_step_body_is_overtaken_and_its_result_refused,
    "lease_taken_at_once": two.test_two_workers_leave_each_other_alone,
}


def test_every_planted_bug_is_looked_for() -> None:
    assert set(BUGS) == set(ONE_PROCESS) | set(TWO_WORKERS)


@pytest.mark.parametrize("bug", ONE_PROCESS)
def test_a_crash_shows(bug: str, crasher: Crasher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.crash.crashing.LIFE_SECONDS_MAX", 2.0)  # some bugs make a flow hang
    scenario, *points = ONE_PROCESS[bug]

    for point in points:
        outcome = crasher.run(Case(scenario, (point,), bug))
        if outcome.violations:
            shutil.rmtree(outcome.folder)
            return

    raise AssertionError(f"{bug} was not noticed in {scenario} at any of {points}")


@pytest.mark.parametrize("bug", TWO_WORKERS)
def test_a_frozen_owner_shows(bug: str, crasher: Crasher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two, "PATIENCE_SECONDS", 3.0)
    folder = Path(crasher.folder / "town")
    folder.mkdir()
    town = two.Town(crasher.zygote, folder, bug)

    with pytest.raises((AssertionError, ValueError)):
        TWO_WORKERS[bug](town)

    town.kill()
    shutil.rmtree(folder)
