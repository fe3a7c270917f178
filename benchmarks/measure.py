"""Run the sides of a workload in turn, each in a process of its own, and take medians over the rounds."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.figures import medians_of
from benchmarks.model import RIVALS, SQLITE, Figures, Params, Workload
from benchmarks.servers import Servers
from tests.servers.binaries import NoServer

ROOT = Path(__file__).resolve().parents[1]
CODE = "code"
SIDE_SECONDS_MAX = 240
"""One side of one round that takes longer is stopped and reported as failed."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a run has to measure with."""

    disk: Path
    """An empty folder on the disk that is measured, and a copy of the code in it: see `freeze`."""
    servers: Servers
    pythons: dict[str, Path] = field(default_factory=dict)
    """The interpreters of the rivals that take part."""


class SideFailed(Exception):
    """A side gave no figures; the message is the end of what it said."""


@dataclass(slots=True)
class Measured:
    """What came of one workload."""

    workload: Workload
    params: dict[str, Params]
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def medians(self) -> dict[str, Figures]:
        """The median of each figure of each side, over the rounds that gave it."""
        return {side: medians_of(rounds) for side, rounds in self.rounds.items() if rounds}


def params_of(workload: Workload, side: str, *, quick: bool) -> Params:
    """The sizes for one side; a slow rival may have smaller ones."""
    params = dict(workload.quick if quick else workload.full)
    if side in RIVALS:
        own = workload.rivals[side]
        params |= {name: max(value // 2, 5) for name, value in own.items()} if quick else own
    return params


def measure(
    workload: Workload,
    *,
    rounds: int,
    quick: bool,
    means: Means,
    progress: Callable[[str], None] = lambda _: None,
) -> Measured:
    """Run every side `rounds` times, taking turns."""
    sides = [*workload.sides, *(rival for rival in workload.rivals if rival in means.pythons)]
    measured = Measured(workload, {side: params_of(workload, side, quick=quick) for side in sides})
    rival_rounds = 1 if quick else workload.rounds_of_rivals
    for number in range(rounds):
        for side in sides:
            progress(side)
            if side in measured.failures or (side in RIVALS and number >= rival_rounds):
                continue
            try:
                figures = run_side(workload, side, measured.params[side], means)
            except SideFailed as failure:
                measured.failures[side] = str(failure)
            else:
                measured.rounds.setdefault(side, []).append(figures)
    return measured


def run_side(workload: Workload, side: str, params: Params, means: Means) -> Figures:
    """Run one side once, in its own process and folder, on the code of `freeze`. Raises `SideFailed`."""
    folder = Path(tempfile.mkdtemp(prefix=f"{workload.name}-{side}-", dir=means.disk))
    try:
        store = {"url": means.servers.fresh(workload.store)} if workload.store != SQLITE else {}
    except NoServer as failure:
        raise SideFailed(str(failure)) from None
    text = json.dumps({**params, **store, "folder": str(folder)})
    if side not in RIVALS:
        function = workload.sides[side]
        command = [
            sys.executable,
            "-m",
            "benchmarks.child",
            f"{function.__module__}:{function.__name__}",
            text,
        ]
    else:
        script = means.disk / CODE / "benchmarks" / "rivals" / f"{side}_side.py"
        command = [str(means.pythons[side]), str(script), workload.name.partition("-")[0], text]
    try:
        return _figures(command, means.disk)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def freeze(disk: Path) -> None:
    """Copy the code to `disk`: a run measures one state of it, whatever is edited meanwhile."""
    for folder in ("src", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, disk / CODE / folder, ignore=ignored, dirs_exist_ok=True)


def environment(disk: Path) -> dict[str, str]:
    """As users have it: modules are compiled once, whatever this shell says about bytecode."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(disk / CODE / "src"), "PYTHONPYCACHEPREFIX": str(disk / "bytecode")}


def _figures(command: list[str], disk: Path) -> Figures:
    process = subprocess.Popen(
        command,
        cwd=disk / CODE,
        env=environment(disk),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=SIDE_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise SideFailed(f"no result after {SIDE_SECONDS_MAX} s") from None
    finally:
        _end_all_of(process)
    lines = out.strip().splitlines()
    if process.returncode != 0 or not lines:
        said = [line for line in (err or out).strip().splitlines() if line.strip()]
        raise SideFailed(f"exit code {process.returncode}: {said[-1] if said else 'it said nothing'}")
    figures: Figures = json.loads(lines[-1])
    return figures


def _end_all_of(process: subprocess.Popen[str]) -> None:
    """End the processes that the side started and did not end itself: they share its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
