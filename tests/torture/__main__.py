"""Torture: `python -m tests.torture --kills 1000 --seed 1`. Exit code 0: green, 1: red, 2: void (proves nothing).

With `--fuzz` random flows instead of known ones, a round after another: see `fuzz.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.crash.processes import Zygote, scratch
from tests.torture.nemesis import MODULES, Nemesis, Plan
from tests.torture.report import command, write_report
from tests.torture.stores import STORES, Store
from tests.torture.verdict import judge, void


@contextmanager
def closing_store(name: str, folder: Path) -> Iterator[Store]:
    """The store of a run."""
    store = STORES[name](folder)
    try:
        yield store
    finally:
        store.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3_600.0)
    parser.add_argument("--lease", type=float, default=1.0)
    parser.add_argument("--store", choices=sorted(STORES), default="sqlite")
    parser.add_argument("--bug", default="", help="plant one of tests/crash/planted.py in the workers")
    parser.add_argument("--out", type=Path, help="where the report goes; default: a new folder")
    parser.add_argument(
        "--fuzz", action="store_true", help="random flows, --rounds of them instead of --kills"
    )
    parser.add_argument("--rounds", type=int, default=100)
    given = parser.parse_args()
    if given.fuzz:
        return fuzz(given)
    plan = Plan(
        seed=given.seed,
        kills=given.kills,
        seconds=given.seconds,
        lease_seconds=given.lease,
        bug=given.bug,
        store=given.store,
    )
    out = given.out or Path(tempfile.mkdtemp(prefix="ergon-torture-"))
    out.mkdir(parents=True, exist_ok=True)
    folder = scratch(out)
    with Zygote(MODULES) as zygote, closing_store(plan.store, folder) as store:
        evidence = Nemesis(plan, folder, zygote, store).run()
    assert not any(name.partition(".")[0] == "ergon" for name in sys.modules), "the nemesis imported ergon"

    violations = judge(evidence)
    reasons = void(evidence, scale=min(evidence.counts["kills"] / 1_000, 1.0))
    facts = write_report(evidence, violations, reasons, out)
    for name, value in facts["counts"].items():
        print(f"{name:<40} {value}")
    print(f"verdict: {facts['verdict']}; seed {plan.seed}; report: {out / 'torture.html'}")
    for violation in violations[:10]:
        print(f"  {violation}")
    for reason in reasons:
        print(f"  void: {reason}")
    if violations or reasons:
        print(f"  repeat: {command(evidence)}\n  files:  {folder}")
    elif folder != out:
        shutil.rmtree(folder)
    return 1 if violations else 2 if reasons else 0


def fuzz(given: argparse.Namespace) -> int:
    """Play random flows."""
    from tests.torture.fuzz import (  # Ergon is in there, which the other mode keeps out
        MODULES,
        Fuzz,
        FuzzPlan,
    )

    plan = FuzzPlan(seed=given.seed, rounds=given.rounds, seconds=given.seconds)
    out = given.out or Path(tempfile.mkdtemp(prefix="ergon-fuzz-"))
    out.mkdir(parents=True, exist_ok=True)
    folder = scratch(out)
    with Zygote(MODULES) as zygote, closing_store(given.store, folder) as store:
        run = Fuzz(plan, folder, zygote, store)
        violations = asyncio.run(run.run())
    for name, value in sorted(run.counts.items()):
        print(f"{name:<40} {value}")
    print(f"verdict: {'red' if violations else 'green'}; seed {plan.seed}")
    for violation in violations[:10]:
        print(f"  {violation}")
    if violations:
        print(f"  the flows of round {run.counts['rounds'] - 1}: {run.evidence}")
    elif folder != out:
        shutil.rmtree(folder)
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
