"""The rivals' environments: made on demand under `.bench/`, never mixed with ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.model import DBOS, PYERGON, RESTATE

PACKAGES = {DBOS: ("dbos",), PYERGON: ("pyergon",), RESTATE: ("restate-sdk", "granian", "uvloop")}
"""What each needs of the Python registry; the first tells its version."""
SERVERS = {RESTATE: "@restatedev/restate-server"}
"""What a rival that is a server needs of npm's registry, into the folder `server` of its environment."""
VERSION = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"


def prepare(rival: str, home: Path) -> tuple[Path | None, str]:
    """Return the rival's Python and its version; or None and why it cannot be had."""
    folder = home / rival
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    package, server = PACKAGES[rival], SERVERS.get(rival)
    version = _version(package[0], python)
    program = folder / "server" / "package-lock.json"  # written last
    if version is not None and (server is None or program.exists()):
        return python, version
    commands = [
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            *package,
        ],
    ]
    if server is not None:
        commands.append(["npm", "install", "--ignore-scripts", "--prefix", str(folder / "server"), server])
    for command in commands:
        if why := _failure_of(command):
            return None, f"cannot be installed: {why}"
    version = _version(package[0], python)
    return (python, version) if version is not None else (None, "was installed, but does not run")


def _failure_of(command: list[str]) -> str:
    """Run it; the last line of what it says when it fails, else nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return f"there is no {command[0]} here"
    if done.returncode == 0:
        return ""
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1] if said else f"exit code {done.returncode}"


def _version(package: str, python: Path) -> str | None:
    try:
        shown = subprocess.run([python, "-c", VERSION, package], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return shown.stdout.strip() if shown.returncode == 0 else None
