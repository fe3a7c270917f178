"""Four workers and three clients on one file, killed and frozen for some seconds; `python -m tests.torture` in short.

The nemesis runs in a process of its own, which never imports Ergon.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash.processes import ROOT

SEED = 20_240_611


def torture(out: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run it; return its exit code, its report, and what it printed."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.torture", "--out", out, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    report = out / "torture.json"
    return run.returncode, json.loads(report.read_text()) if report.exists() else {}, run.stdout + run.stderr


@pytest.mark.timeout(240)
def test_nothing_is_lost_or_doubled_while_workers_and_clients_are_killed(tmp_path: Path) -> None:
    code, report, said = torture(tmp_path, "--seed", str(SEED), "--seconds", "11")

    assert code == 0, said
    assert (report["lost"], report["duplicated"], report["violations"]) == (0, 0, [])
    counts = report["counts"]
    assert counts["kills"] >= 15, said
    assert counts["repeated, each explained by a fault"] >= 1, said
    assert counts["step executions"] > counts["flows"], said


@pytest.mark.timeout(240)
def test_the_kill_loop_finds_a_planted_bug(tmp_path: Path) -> None:
    bug = "result_delivered_before_durable"
    code, report, said = torture(tmp_path, "--seed", str(SEED), "--seconds", "4", "--bug", bug)

    assert code == 1, said
    assert report["violations"], said
    assert f"--seed {SEED}" in said
