"""Each example flow, killed at every write to the log and in every step body, comes to the same end.

How often each step body ran is exact: once, and once more for the steps that were open when the process died. The
writes of the second life are crash points too; of the pairs a seeded sample is tried.
"""

from __future__ import annotations

import pytest

from tests.crash.crashing import Case, Crasher, points_of, sampled_pairs, tally
from tests.crash.scenarios import SCENARIOS

PAIRS = 3
SEED = 20_240_607


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_flow_killed_at_any_point_comes_to_the_same_end(name: str, crasher: Crasher) -> None:
    """None lost, none run again after its commit; a second crash during recovery changes nothing."""
    points = points_of(crasher.count(name))

    outcomes = [crasher.run(Case(name, point)) for point in [*points, *sampled_pairs(points, PAIRS, SEED)]]

    bad = [outcome for outcome in outcomes if outcome.violations]
    assert not bad, "\n".join(
        [f"{len(bad)} of {len(outcomes)} runs:", *(outcome.report() for outcome in bad[:3])]
    )
    counts = tally(outcomes[: len(points)])
    assert counts["kills"] >= 0.9 * len(points), f"hardly a kill: this proves nothing: {counts}"
