"""Start the processes of `workload.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Run a workload; its output can be read line by line."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, "-m", "tests.storage.sqlite.workload", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )


def say(child: subprocess.Popen[str], line: str = "") -> None:
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()


def hear(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    assert child.stderr is not None
    line = child.stdout.readline().strip()
    if not line:
        raise AssertionError(child.stderr.read())
    return line


def finish(child: subprocess.Popen[str]) -> None:
    """End it and close its pipes."""
    child.kill()
    child.communicate()
