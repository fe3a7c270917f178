"""Repeat one crash: `python -m tests.crash SCENARIO POINT [POINT ...] [--bug NAME]`.

Without a point every one is tried in turn, and `--pairs N --seed S` adds N sampled pairs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.crashing import MODULES, Case, Crasher, points_of, sampled_pairs, tally
from tests.crash.processes import Zygote, scratch
from tests.crash.scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("scenario", choices=["all", *SCENARIOS])
    parser.add_argument("points", nargs="*")
    parser.add_argument("--bug", default="")
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--times", type=int, default=1)
    given = parser.parse_args()
    names = list(SCENARIOS) if given.scenario == "all" else [given.scenario]
    folder = scratch(Path(tempfile.mkdtemp(prefix="ergon-crash-")))
    failed = 0
    with Zygote(MODULES) as zygote:
        crasher = Crasher(zygote, folder)
        for name in names:
            started = time.monotonic()
            if given.points:
                points = [tuple(point.strip("-") for point in given.points)]
                cases = [Case(name, points[0], given.bug)] * given.times
                counts = []
            else:
                counts = crasher.count(name)
                points = points_of(counts)
                pairs = sampled_pairs(points, given.pairs, given.seed)
                cases = [Case(name, point, given.bug) for point in points] * given.times
                cases += [Case(name, pair, given.bug) for pair in pairs]
            outcomes = [crasher.run(case) for case in cases]
            bad = [outcome for outcome in outcomes if outcome.violations]
            failed += len(bad)
            print(f"{name:<22} {tally(outcomes)} {counts} {time.monotonic() - started:.1f} s", flush=True)
            for outcome in bad[:3]:
                print(outcome.report())
            if len(bad) > 3:
                print(f"... and {len(bad) - 3} more: {[outcome.case.points for outcome in bad[3:]]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
