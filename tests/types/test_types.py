"""Users' editors know what a step returns and which arguments it takes: checked with mypy --strict and pyright."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SNIPPETS = [str(HERE / "accepted.py"), str(HERE / "refused.py")]

MYPY = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--explicit-package-bases"]
PYRIGHT = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("checker", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_types_reach_the_caller_and_wrong_arguments_do_not_pass(checker: list[str]) -> None:
    run = subprocess.run([*checker, *SNIPPETS], cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr


QUICK_STARTS = ["distributed_timers.py", "quick_start.py"]
UNTYPED = ["--allow-untyped-defs", "--allow-incomplete-defs", "--allow-untyped-calls"]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("checker", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_the_examples_are_read_without_a_complaint(checker: list[str]) -> None:
    """What a newcomer copies must not be underlined. Only the two quick starts have no annotations, and need none."""
    examples = sorted(path for path in (ROOT / "examples").glob("*.py"))
    typed = [str(path) for path in examples if path.name not in QUICK_STARTS]
    untyped = [str(ROOT / "examples" / name) for name in QUICK_STARTS]
    relaxed = [*checker, *(UNTYPED if checker is MYPY else [])]

    for command in ([*checker, *typed], [*relaxed, *untyped]):
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

        assert run.returncode == 0, run.stdout + run.stderr
