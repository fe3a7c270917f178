#!/usr/bin/env python3
"""Run every project command, on a machine that has nothing but Python and pip.

`python3 dev.py COMMAND [ARGUMENTS]` makes `.venv` from `requirements.lock` when it is missing or out of date,
runs the command inside it, and exits with the command's own exit code. Only the standard library is imported
here, because this file runs before anything is installed. The Makefile is a list of short names for it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
LOCK = ROOT / "requirements.lock"
STAMP = VENV / "installed-from"
PYTHON_MIN = (3, 11)
PYTHONS = ("3.11", "3.12", "3.13")  # every one replays the same histories: see `replay-proof`
TEST_PROCESSES = str(2 * (os.cpu_count() or 1))  # a test waits for disks and other processes half of its time
SEQUENCES = "100"  # random ones, half of the conformance suite's default: it runs on six logs, and `torture` runs more
POSTGRES = "13"  # the oldest version promised; the suite runs on the newest

Command = Sequence[str | Path]
Stage = tuple[str, Command]


class SetupError(Exception):
    """The environment cannot be made; the message says what to do."""


# --- The environment ----------------------------------------------------------------------------------------


def ensure_environment() -> None:
    """Make `.venv` match the lock and pyproject.toml; do nothing when it already does."""
    if is_current():
        return
    with one_at_a_time():
        if is_current():  # another process made it while this one waited
            return
        started = time.monotonic()
        if not runs(PYTHON):
            say(f"Creating .venv with Python {sys.version.split()[0]}")
            create_venv()
        say("Installing the packages of requirements.lock (a minute or less the first time)")
        pip("install", "--require-hashes", "--requirement", LOCK)
        say("Installing ergon itself, editable")
        pip("install", "--no-deps", "--no-build-isolation", "--editable", ROOT)
        STAMP.write_text(fingerprint())
        say(f"The environment is ready ({time.monotonic() - started:.0f} s)")


def is_current() -> bool:
    """Say whether `.venv` was installed from the lock and pyproject.toml as they are now."""
    return STAMP.is_file() and STAMP.read_text() == fingerprint() and runs(PYTHON)


def fingerprint() -> str:
    """Digest what an installation depends on; the path is in it because an editable install points at it."""
    digest = hashlib.sha256(str(ROOT).encode())
    for file in (LOCK, ROOT / "pyproject.toml"):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def create_venv() -> None:
    """Create an empty `.venv`, with pip inside when this Python can put it there."""
    if importlib.util.find_spec("venv") is None:
        raise SetupError(NO_VENV)
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    if not has_ensurepip and importlib.util.find_spec("pip") is None:
        raise SetupError(NO_VENV)
    without_pip = [] if has_ensurepip else ["--without-pip"]  # then this Python's own pip installs into it
    run([sys.executable, "-m", "venv", "--clear", *without_pip, VENV])


NO_VENV = """\
This Python can make no virtual environment: it has neither `ensurepip` nor `pip`.
On Debian and Ubuntu they are separate packages: apt-get install python3-venv
Elsewhere, use a Python from python.org, pyenv or your system's full package."""


def pip(*arguments: str | Path) -> None:
    """Run pip for `.venv`: its own, or the one of this Python where `.venv` was made without."""
    inside: Command = [PYTHON, "-m", "pip"]
    outside: Command = [sys.executable, "-m", "pip", "--python", PYTHON]
    has_own = subprocess.run([*inside, "--version"], capture_output=True, check=False).returncode == 0
    quiet = ("--quiet", "--quiet", "--disable-pip-version-check", "--no-input")  # errors still show
    run([*(inside if has_own else outside), *quiet, *arguments])


def run(command: Command) -> None:
    """Run one command of the set-up; its own output has already told why it failed."""
    if (code := call(command)) != 0:
        raise SetupError(f"The set-up stopped: exit code {code} from {' '.join(map(str, command))}")


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the set-up lock of this checkout, so that two commands never install at once."""
    try:
        import fcntl
    except ImportError:  # Windows: no such lock, and hardly two commands at once
        yield
        return
    directory = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)  # gives the lock back


# --- Running things -----------------------------------------------------------------------------------------


def say(line: str) -> None:
    """Print one progress line now, even when the output is a file."""
    print(f"==> {line}", flush=True)


def call(command: Command) -> int:
    """Run a command from the project's root and return its exit code."""
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    return code if code >= 0 else 128 - code  # killed by a signal: what a shell would report


def runs(python: str | Path, version: str = "") -> bool:
    """Say whether this interpreter really runs, and is of that version: a shim on PATH may do neither."""
    show = "import sys; print('{}.{}'.format(*sys.version_info))"
    try:
        shown = subprocess.run([python, "-c", show], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return shown.returncode == 0 and shown.stdout.strip().startswith(version)


def find_python(version: str) -> Path | None:
    """Find a Python of that version that really runs: this one, on PATH, or where pyenv and uv keep theirs."""
    name = f"python{version}.exe" if os.name == "nt" else f"python{version}"
    this = Path(sys.base_prefix) / "bin" / name
    on_path = [Path(folder) / name for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    uv = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "uv/python"
    kept = [*pyenv.glob(f"{version}.*/bin/{name}"), *uv.glob(f"cpython-{version}.*/bin/{name}")]
    found = (python for python in [this, *on_path, *kept] if python.is_file() and runs(python, version))
    return next(found, None)


def stages(*todo: Stage) -> int:
    """Run every stage even when one fails, sum up, and return the exit code of the first that failed."""
    results = []
    for name, command in todo:
        say(name)
        started = time.monotonic()
        results.append((name, call(command), time.monotonic() - started))
    say("Summary")
    for name, code, seconds in results:
        print(f"    {name:<24} {'ok' if code == 0 else f'FAILED ({code})':<12} {seconds:6.1f} s")
    return next((code for _, code, _ in results if code), 0)


def nox(session: str, versions: list[str], arguments: list[str]) -> Command:
    """Build the command for one session of noxfile.py on these Python versions."""
    return [PYTHON, "-m", "nox", "--session", session, "--python", *versions, "--", *arguments]


def missing_pythons() -> list[str]:
    """Name the Python versions that this machine does not have."""
    return [version for version in PYTHONS if find_python(version) is None]


def tell_missing(missing: list[str]) -> int:
    """Say plainly what was not tested; it is an error only where every version was promised to be there."""
    for version in missing:
        say(f"NOT TESTED on Python {version}: no such interpreter on this machine (PATH, pyenv, uv)")
    return 1 if missing and os.environ.get("ERGON_REQUIRE_PYTHONS") == "1" else 0


# --- The commands -------------------------------------------------------------------------------------------

LINT: list[Stage] = [
    ("ruff check", [BIN / "ruff", "check"]),
    ("ruff format", [BIN / "ruff", "format", "--check"]),
    ("import layers", [BIN / "lint-imports", "--no-cache", "--no-logo"]),
]
TYPES: list[Stage] = [
    ("mypy", [BIN / "mypy"]),
    ("pyright", [BIN / "pyright"]),
]


POSTGRES_SUITE = (
    "tests/conformance/test_postgres.py", "tests/storage/postgres", "tests/servers/test_postgres_server.py",
    "tests/cli/test_stores.py",
)  # fmt: skip
POSTGRES_PART = (
    "tests/conformance/test_postgres.py", "tests/storage/postgres/test_plans.py",
    "tests/storage/postgres/test_refusals.py", "-k", "twice or seek or in_order or rights",
)  # fmt: skip


def test(arguments: list[str]) -> int:
    """Everything a change must pass; arguments go to pytest."""
    os.environ.setdefault("ERGON_CONFORMANCE_SEQUENCES", SEQUENCES)
    missing = missing_pythons()
    others = [version for version in PYTHONS if version not in missing and not runs(PYTHON, version)]
    replay: list[Stage] = [(f"replay on {', '.join(others)}", nox("replay", others, []))] if others else []
    pytest: Stage = ("pytest", [PYTHON, "-m", "pytest", "-n", TEST_PROCESSES, *arguments])
    has_oldest = call(on_postgres(POSTGRES)) == 0  # else it has said why
    oldest: list[Stage] = [(f"PostgreSQL {POSTGRES}", on_postgres(POSTGRES, "-q", *POSTGRES_PART))]
    code = stages(*LINT, *TYPES, pytest, *(oldest if has_oldest else []), *replay)
    return code or max(tell_missing(missing), 0 if has_oldest else tell_no_postgres())


def on_postgres(version: str, *arguments: str) -> Command:
    """Build the command that fetches a version of PostgreSQL if need be and runs pytest on it."""
    return [PYTHON, "-m", "tests.servers.versions", version, *arguments]


def tell_no_postgres() -> int:
    """Say plainly what was not tested; it is an error only where that version was promised to be there."""
    say(
        f"NOT TESTED on PostgreSQL {POSTGRES}: none is here, and none could be fetched (the reason stands at the top)"
    )
    return 1 if os.environ.get("ERGON_REQUIRE_POSTGRES") == "1" else 0


def postgres(arguments: list[str]) -> int:
    """Run the tests of the log on PostgreSQL on these versions, such as `13 15`; other arguments go to pytest."""
    split = next((place for place, text in enumerate(arguments) if not text.isdecimal()), len(arguments))
    versions, rest = arguments[:split] or [POSTGRES], arguments[split:]
    chosen = [] if any((ROOT / text.partition("::")[0]).exists() for text in rest) else POSTGRES_SUITE
    options = ["-n", TEST_PROCESSES, *chosen, *rest]
    return stages(*((f"PostgreSQL {version}", on_postgres(version, *options)) for version in versions))


def check(arguments: list[str]) -> int:
    """Lint, types and the tidy rules: what needs no test run; arguments go to the tidy rules."""
    tidy: Stage = ("tidy", [PYTHON, "-m", "pytest", "-q", "tests/tools", *arguments])
    return stages(*LINT, *TYPES, tidy)


def lint(arguments: list[str]) -> int:
    """Ruff's rules, the format, and the direction of imports; arguments go to ruff check."""
    (name, ruff), *rest = LINT
    return stages((name, [*ruff, *arguments]), *rest)


def types(arguments: list[str]) -> int:
    """Check types twice: mypy and pyright; arguments go to mypy."""
    (name, mypy), *rest = TYPES
    return stages((name, [*mypy, *arguments]), *rest)


def fmt(arguments: list[str]) -> int:
    """Format the code and apply ruff's safe fixes; arguments are paths."""
    return call([BIN / "ruff", "check", "--fix", *arguments]) or call([BIN / "ruff", "format", *arguments])


def demo(arguments: list[str]) -> int:
    """Watch flows survive a crash: `ergon demo`."""
    return call([BIN / "ergon", "demo", *arguments])


def bench(arguments: list[str]) -> int:
    """Measure, side by side in one run: `python -m benchmarks`."""
    return call([PYTHON, "-m", "benchmarks", *arguments])


def replay_proof(arguments: list[str]) -> int:
    """Replay 10,000 random programs on every Python version, histories compared."""
    missing = missing_pythons()
    there = [version for version in PYTHONS if version not in missing]
    code = call(nox("replay_proof", there, ["--programs", "10000", *arguments]))
    return code or tell_missing(missing)


def torture(arguments: list[str]) -> int:
    """Run the long crash and contention tests; arguments go to pytest."""
    return call([PYTHON, "-m", "pytest", "-m", "torture", "--timeout", "3600", *arguments])


def lock(arguments: list[str]) -> int:
    """Write requirements.lock from pyproject.toml; `--upgrade` takes the newest versions."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("UV_FIND", "PIP_FIND"))}
    shape = ["--universal", "--python-version", PYTHONS[0], "--generate-hashes"]
    quiet = ["--quiet", "--no-config", "--no-header", "--no-annotate"]
    what = ["pyproject.toml", "--all-extras", "--group", "dev", "--output-file", LOCK.name]
    command: Command = [BIN / "uv", "pip", "compile", *shape, *quiet, *what, *arguments]
    code = subprocess.run(command, cwd=ROOT, env=clean, check=False).returncode
    if "://" in LOCK.read_text():
        print("requirements.lock names an address; it must install from any index")
        return 1
    return code


def setup(arguments: list[str]) -> int:  # noqa: ARG001 - ensure_environment has done it all
    """Make or update .venv and stop."""
    say("The environment is up to date")
    return 0


def doctor(arguments: list[str]) -> int:  # noqa: ARG001 - takes none
    """Show what this machine has and what is missing."""
    state = "up to date" if is_current() else "out of date or missing (python3 dev.py setup)"
    facts = {
        "this Python": f"{sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}",
        ".venv": state,
        **{f"Python {version}": find_python(version) or "not found" for version in PYTHONS},
        **{tool: shutil.which(tool) or "not found" for tool in ("git", "make")},
    }
    for name, fact in facts.items():
        print(f"{name:<14} {fact}")
    return 0


def clean(arguments: list[str]) -> int:  # noqa: ARG001 - takes none
    """Remove the environments and every cache."""
    for pattern in (".venv", ".nox", ".servers", ".*_cache", ".hypothesis", "build", "dist"):
        for path in ROOT.glob(pattern):
            shutil.rmtree(path)
    return 0


def help_(arguments: list[str]) -> int:  # noqa: ARG001 - takes none
    """Show this list."""
    for name, command in COMMANDS.items():
        print(f"{name:<14} {(command.__doc__ or '').splitlines()[0]}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "test": test,
    "demo": demo,
    "bench": bench,
    "check": check,
    "lint": lint,
    "types": types,
    "fmt": fmt,
    "postgres": postgres,
    "replay-proof": replay_proof,
    "torture": torture,
    "lock": lock,
    "setup": setup,
    "doctor": doctor,
    "clean": clean,
    "help": help_,
}
NEED_NOTHING = {"doctor", "clean", "help"}  # these work before, or without, an environment


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    if sys.version_info < PYTHON_MIN:
        print(f"Ergon needs Python 3.11 or newer; this is {sys.version.split()[0]}. Try: python3.11 dev.py")
        return 2
    name, *rest = arguments or ["help"]
    if (command := COMMANDS.get(name)) is None:
        print(f"There is no command {name!r}. These are:\n")
        help_([])
        return 2
    try:
        if name not in NEED_NOTHING:
            ensure_environment()
        return command(rest)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
