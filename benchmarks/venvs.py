"""The rivals' environments: made on demand under `.bench/`, never mixed with ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.model import RIVALS

VERSION = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


def prepare(rival: str, home: Path) -> tuple[Path | None, str]:
    """Return the rival's Python and its version; or None and why it cannot be had."""
    assert rival in RIVALS
    folder = home / rival
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    version = _version(rival, python)
    if version is not None:
        return python, version
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", rival],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            return None, f"cannot be installed: {said[-1] if said else f'exit code {done.returncode}'}"
    version = _version(rival, python)
    return (python, version) if version is not None else (None, "was installed, but does not run")


def _version(rival: str, python: Path) -> str | None:
    try:
        shown = subprocess.run([python, "-c", VERSION, rival], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return shown.stdout.strip() if shown.returncode == 0 else None
