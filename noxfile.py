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

REPLAY_TESTS = ("tests/replay", "tests/stories")
REPLAY_PROOF = "tests/replay_proof"  # a module or a package: `python -m tests.replay_proof`


@nox.session(python=dev.PYTHONS)
def replay(session: nox.Session) -> None:
    """Run the replay tests, then a short replay proof."""
    paths = [path for path in REPLAY_TESTS if (ROOT / path).exists()]
    if not paths and not has_proof():
        session.skip(f"none of {', '.join(REPLAY_TESTS)}, {REPLAY_PROOF} exists")
    install(session)
    if paths:
        session.run("python", "-m", "pytest", "-q", "-n", dev.TEST_PROCESSES, *paths, *session.posargs)
    if has_proof():
        session.run("python", "-m", "tests.replay_proof", "--programs", "500")


@nox.session(python=dev.PYTHONS)
def replay_proof(session: nox.Session) -> None:
    """Run the replay proof; arguments go to it."""
    install(session)
    session.run("python", "-m", "tests.replay_proof", *session.posargs)


def has_proof() -> bool:
    """Say whether the replay proof is there."""
    return any((ROOT / path).exists() for path in (f"{REPLAY_PROOF}.py", f"{REPLAY_PROOF}/__main__.py"))


def install(session: nox.Session) -> None:
    """Install the locked packages once per lock, and the package as users get it: built, not editable."""
    stamp = Path(session.virtualenv.location) / "installed-from"
    if not stamp.is_file() or stamp.read_text() != dev.fingerprint():
        session.install("--require-hashes", "--requirement", "requirements.lock")
        stamp.write_text(dev.fingerprint())
    # The sources may have changed where the version has not.
    again = "--reinstall-package=ergon" if session.venv_backend == "uv" else "--force-reinstall"
    session.install("--no-deps", "--no-build-isolation", again, ".")
