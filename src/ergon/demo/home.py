"""The demo's own directory: its state between two starts, and what `--fresh` may remove.

Only files with the demo's own names are ever removed, and only beside a state file that a demo wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from ergon.demo.files import Job, to_text

STATE: Final = "demo.json"
OURS: Final = (
    "index.jsonl",
    "ledger.jsonl",
    "manifest.draft",
    "manifest.sha256",
    "worker.log",
)
STDLIB_SKIP: Final[tuple[str, ...]] = ("site-packages", "dist-packages", "__pycache__")
"""Not the standard library, or changed by merely running Python."""


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


@dataclass
class Death:
    """A worker that ended before the work did."""

    process: str
    how: str
    open_bodies: list[str] = field(default_factory=list)
    """What it was doing: steps that had begun and were not committed."""


@dataclass
class State:
    """What the demo remembers when it is stopped itself."""

    job: Job
    began_at: float
    kills: int = 0
    """How many of the planned kills are done."""
    workers: int = 0
    revived: int = 0
    """Results that flows took from the log when they were revived after a death."""
    deaths: list[Death] = field(default_factory=list)
    finished: bool = False


class Home:
    """The demo's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = path / "demo.db"
        self.worker_log = path / "worker.log"
        self.manifest = path / "manifest.sha256"

    def load(self) -> State | None:
        """What an earlier demo left, or None. Raises `DemoError` when it cannot be read."""
        try:
            found = json.loads((self.path / STATE).read_text(encoding="utf-8"))
            deaths = [Death(**death) for death in found.pop("deaths")]
            return State(job=Job(**found.pop("job")), deaths=deaths, **found)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise DemoError(
                f"{self.path / STATE} is not what a demo wrote; start over with --fresh"
            ) from None

    def save(self, state: State) -> None:
        """Keep the state; whole or not at all."""
        new = self.path / f"{STATE}.new"
        new.write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
        new.replace(self.path / STATE)

    def prepare(self) -> None:
        """Make the directory and check that it is ours or empty of what we would write."""
        (self.path / "parts").mkdir(parents=True, exist_ok=True)
        strange = [path.name for path in self._ours()]
        if strange and not (self.path / STATE).exists():
            raise DemoError(
                f"{self.path} holds {strange[0]}, which no demo wrote; choose another place with --dir"
            )

    def clear(self) -> None:
        """Remove what an earlier demo left, and nothing else."""
        if not (self.path / STATE).exists():
            return
        for path in self._ours():
            path.unlink(missing_ok=True)
        shutil.rmtree(self.path / "parts", ignore_errors=True)
        (self.path / STATE).unlink()

    def _ours(self) -> list[Path]:
        """What a demo writes: its own names, and the files that SQLite and the log keep beside the database."""
        return [*self.path.glob("demo.db*"), *(path for name in OURS if (path := self.path / name).exists())]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let only one demo play here. Raises `DemoError`."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            import fcntl
        except ImportError:  # Windows has no such lock
            yield
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DemoError(f"another demo is playing in {self.path}; wait for it, or use --dir") from None
        else:
            yield
        finally:
            os.close(folder)


def job_for(directory: str | None, home: Path) -> Job:
    """What to index: the directory given, else this Python's standard library."""
    root = os.path.realpath(directory if directory is not None else sysconfig.get_path("stdlib"))
    skip: list[str] = []
    if directory is None:
        binaries = sysconfig.get_config_var(
            "LIBPL"
        )  # what Python itself was built with: no source, and large
        skip = [*STDLIB_SKIP, *([Path(binaries).name] if binaries else [])]
    return Job(root=to_text(os.fsencode(root)), home=str(home.resolve()), skip=skip)
