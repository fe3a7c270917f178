"""Replay on every supported Python: a history written by one version must replay on all of them.

`python3 dev.py test` and `python3 dev.py replay-proof` call these sessions; everything else runs in `.venv`.
"""

import os
import sys
from pathlib import Path

import nox

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT))

import dev  # noqa: E402 - it knows where interpreters live; the line above makes it importable

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False  # dev.py names each version that was not tested
nox.options.reuse_venv = "yes"
nox.options.sessions = ["replay"]

# nox takes the first `python3.X` on PATH, which may be a shim that does not run: put the real ones first.
_FOUND = [str(python.parent) for version in dev.PYTHONS if (python := dev.find_python(version))]
os.environ["PATH"] = os.pathsep.join([*_FOUND, os.environ["PATH"]])

REPLAY_TESTS = ("tests/replay", "-k", "not postgres and not redis")
"""What a flow does on another Python, 1,000 random programs among it; what a server does is the same there."""
STORIES = "tests/stories"
REPLAY_PROOF = "tests.replay_proof"


@nox.session(python=dev.PYTHONS)
def replay(session: nox.Session) -> None:
    """Run the replay tests, and on the newest Python the stories."""
    install(session)
    tests = [*REPLAY_TESTS, *([STORIES] if session.python == dev.PYTHONS[-1] else []), *session.posargs]
    session.run("python", "-m", "pytest", "-q", "-n", dev.TEST_PROCESSES, *tests)


@nox.session(python=dev.PYTHONS)
def replay_proof(session: nox.Session) -> None:
    """Run the replay proof; arguments go to it."""
    install(session)
    session.run("python", "-m", REPLAY_PROOF, *session.posargs)


def install(session: nox.Session) -> None:
    """Install the locked packages once per lock, and the package as users get it: built, not editable."""
    stamp = Path(session.virtualenv.location) / "installed-from"
    if not stamp.is_file() or stamp.read_text() != dev.fingerprint():
        session.install("--require-hashes", "--requirement", "requirements.lock")
        stamp.write_text(dev.fingerprint())
    # The sources may have changed where the version has not.
    again = "--reinstall-package=ergon" if session.venv_backend == "uv" else "--force-reinstall"
    session.install("--no-deps", "--no-build-isolation", again, ".")
