"""Kill a scenario's process at a chosen point, start it again until it is through, and gather the evidence.

A point is `commit:3:post` (right after the transaction with the third commit is durable), `claim:1:pre`, or
`begin:2` and `end:2`: inside a step's body, right after its second BEGIN or END went out.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.crash.checker import Expected, Life, Violation, check
from tests.crash.ledger import read_ledger
from tests.crash.processes import Zygote
from tests.crash.scenarios import SCENARIOS
from tests.crash.snapshot import take_snapshot

MODULES: Final = ("tests.crash.program", "tests.crash.scenarios", "tests.crash.warm")
LIVES_MAX: Final = 8
LIFE_SECONDS_MAX: Final = 15.0
RUN: Final = "tests.crash.program:run"


@dataclass(frozen=True)
class Case:
    """One way to crash one scenario: where the first process is killed, where the second, and so on."""

    scenario: str
    points: tuple[str, ...] = ()
    bug: str = ""

    @property
    def command(self) -> str:
        """How to repeat it."""
        bug = f" --bug {self.bug}" if self.bug else ""
        return f"python -m tests.crash {self.scenario} {' '.join(point or '-' for point in self.points)}{bug}"


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    case: Case
    lives: list[Life]
    violations: list[Violation]
    folder: Path

    @property
    def hits(self) -> int:
        """How many of the points were reached."""
        return sum(life.killed for life in self.lives)

    def report(self) -> str:
        """For a person: what was violated first, the evidence, and how to repeat it."""
        lines = [f"{self.case.scenario}, killed at {', '.join(self.case.points) or 'no point'}:"]
        lines += [f"  {violation}" for violation in self.violations[:5]]
        lines += [f"  repeat: {self.case.command}", f"  files:  {self.folder}"]
        for number, life in enumerate(self.lives):
            how = "killed" if life.killed else f"ended with {life.status}"
            lines.append(f"  life {number} ({how}):")
            lines += [f"    {record}" for record in life.records if record.kind != "NOTE"][:40]
            for id, events in life.after.events.items():
                kinds = ", ".join(
                    f"{event['seq']}:{event['kind']}:{event['op'] or event['name']}" for event in events
                )
                row = life.after.flows[id]
                lines.append(f"    durable: {id} is {row['status']} at epoch {row['epoch']}: {kinds}")
        return "\n".join(lines)


class Crasher:
    """Runs cases, one after the other, in numbered folders."""

    def __init__(self, zygote: Zygote, folder: Path) -> None:
        self.zygote = zygote
        self.folder = folder
        self.runs = 0

    def run(self, case: Case, *, trace: Path | None = None) -> Outcome:
        """Play a case to its end and check it. The files are kept only when something is wrong."""
        self.runs += 1
        folder = self.folder / f"{case.scenario}-{self.runs}"
        folder.mkdir(parents=True)
        lives = list(self._lives(case, folder, trace))
        play = SCENARIOS[case.scenario]
        expected = Expected(
            labels=play.labels,
            timers=play.timers,
            may_drop=play.may_drop,
            ends=play.ends,
            deleted=play.deleted,
            retried=play.retried,
            reaped=bool(play.flows),
            check=play.check,
        )
        violations = check(lives, expected)
        outcome = Outcome(case, lives, violations, folder)
        if not violations and trace is None:
            shutil.rmtree(folder)
        return outcome

    def _lives(self, case: Case, folder: Path, trace: Path | None) -> Iterator[Life]:
        seen = 0
        points = iter(case.points)
        for number in range(LIVES_MAX):
            child = self.zygote.fork(
                RUN,
                err=folder / f"stderr-{number}",
                scenario=case.scenario,
                folder=folder,
                failpoint=next(points, ""),
                trace=f"{trace}-{number}" if trace is not None else None,
                bug=case.bug,
            )
            status = child.wait(LIFE_SECONDS_MAX)
            if status is None:
                child.send(signal.SIGABRT)  # the fault handler shows where it is stuck
                child.wait(5)
            records = read_ledger(folder / "ledger", seen)
            seen += len(records)
            after = take_snapshot(folder / "log.db", folder / f"after-{number}")
            life = Life(records, after, status == -signal.SIGKILL, status, child.errors())
            yield life
            if status is None or any(record.kind == "DONE" for record in records) or status > 0:
                return

    def count(self, scenario: str) -> list[dict[str, int]]:
        """For each life of a run without a kill: how many writes of each name and records of each kind it makes."""
        trace = self.folder / f"trace-{scenario}-{self.runs}"
        outcome = self.run(Case(scenario), trace=trace)
        if outcome.violations:
            raise AssertionError(outcome.report())
        counts = []
        for number, life in enumerate(outcome.lives):
            names = Counter(line.split()[1] for line in Path(f"{trace}-{number}").read_text().splitlines())
            kinds = Counter(record.kind for record in life.records)
            counts.append({**names, "begin": kinds["BEGIN"], "end": kinds["END"]})
            Path(f"{trace}-{number}").unlink()
        shutil.rmtree(outcome.folder)
        return counts


def points_of(counts: Sequence[dict[str, int]]) -> list[tuple[str, ...]]:
    """Every point of a run with these counts; an empty name lets a life end by itself first."""
    points = []
    for life, names in enumerate(counts):
        for name, count in names.items():
            for number in range(1, count + 1):
                whens = ("",) if name in ("begin", "end") else (":pre", ":post")
                points += [("",) * life + (f"{name}:{number}{when}",) for when in whens]
    return points


def chosen_points(scenario: str, counts: Sequence[dict[str, int]], seed: int) -> list[tuple[str, ...]]:
    """The points to try: all, or a sample where the scenario says that each takes long."""
    if SCENARIOS[scenario].points:
        return [(point,) for point in SCENARIOS[scenario].points]
    points, most = points_of(counts), SCENARIOS[scenario].points_max
    if most is None or len(points) <= most:
        return points
    return random.Random(seed).sample(points, most)


def sampled_pairs(points: Sequence[tuple[str, ...]], count: int, seed: int) -> list[tuple[str, ...]]:
    """Pairs of points: the second one is met during recovery."""
    rng = random.Random(seed)
    return [(*rng.choice(points), rng.choice(points)[-1]) for _ in range(count)]


def tally(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What was really exercised."""
    return {
        "runs": len(outcomes),
        "kills": sum(outcome.hits for outcome in outcomes),
        "missed": sum(sum(map(bool, outcome.case.points)) - outcome.hits for outcome in outcomes),
    }
