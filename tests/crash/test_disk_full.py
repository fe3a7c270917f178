"""The disk fills up while flows run: what was acknowledged stays, and flows go on by themselves once there is room."""

from __future__ import annotations

import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.crash.checker import Expected, Life, Violation, check
from tests.crash.crashing import RUN, Crasher
from tests.crash.ledger import read_ledger
from tests.crash.processes import Child
from tests.crash.scenarios import SHARED
from tests.crash.snapshot import Snapshot, take_snapshot

ROOM_BYTES = 1_400_000
MakeRoom = Callable[[Child], None]


class Full:
    """A log where there is hardly any room, and how to make some."""

    def __init__(self, crasher: Crasher, log: Path, *, file_bytes_max: int, make_room: MakeRoom) -> None:
        self.crasher, self.log, self.make_room = crasher, log, make_room
        self.file_bytes_max = file_bytes_max
        self.folder = crasher.folder / "full"
        self.folder.mkdir()
        self.lives = 0

    def start(self, *, room: bool = False) -> Child:
        self.lives += 1
        return self.crasher.zygote.fork(
            RUN,
            err=self.folder / f"stderr-{self.lives}",
            scenario="filling",
            folder=self.folder,
            log=str(self.log),
            file_bytes_max=0 if room else self.file_bytes_max,
        )

    def look(self) -> Snapshot:
        return take_snapshot(self.log, self.folder / f"after-{self.lives}-{time.monotonic_ns()}")

    def wait_full(self, child: Child) -> None:
        give_up_at = time.monotonic() + 20
        while "no room" not in child.errors():
            assert time.monotonic() < give_up_at, f"it never got full: {child.errors()}"
            assert child.status is None, f"it ended with {child.status}: {child.errors()}"
            child.wait(0.01)

    def check(self, lives: list[Life]) -> list[Violation]:
        return check(lives, Expected(labels=SHARED["filling"].labels))

    def life(self, child: Child, after: Snapshot, first: int = 0) -> Life:
        records = read_ledger(self.folder / "ledger", first)
        return Life(records, after, child.status == -signal.SIGKILL, child.status, child.errors())


@contextmanager
def small_disk(crasher: Crasher) -> Iterator[Full]:
    """A file system in memory of our own, which can be made larger."""
    mount = crasher.folder / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "none", mount], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("mounting a small disk takes rights that this process lacks")

    def make_room(child: Child) -> None:
        subprocess.run(["mount", "-o", "remount,size=50m", str(mount)], check=True)

    try:
        yield Full(crasher, mount / "log.db", file_bytes_max=0, make_room=make_room)
    finally:
        subprocess.run(["umount", "-l", mount], check=True)
        mount.rmdir()


@contextmanager
def small_files(crasher: Crasher) -> Iterator[Full]:
    """A limit on the size of a file, as quotas and containers have, which can be raised from outside."""

    def make_room(child: Child) -> None:
        no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, no_limit)

    yield Full(
        crasher, crasher.folder / "full" / "log.db", file_bytes_max=ROOM_BYTES * 2 // 3, make_room=make_room
    )


KINDS = pytest.mark.parametrize("kind", [small_disk, small_files], ids=["disk", "file-size"])
Kind = Callable[[Crasher], AbstractContextManager[Full]]


@KINDS
def test_flows_wait_for_room_and_go_on(kind: Kind, crasher: Crasher) -> None:
    """One life: no step runs twice, for a commit that met a full disk is submitted again as it is."""
    with kind(crasher) as full:
        child = full.start()
        full.wait_full(child)
        child.wait(0.7)  # longer than until the next try

        full.make_room(child)

        assert child.wait(30) == 0, child.errors()
        violations = full.check([full.life(child, full.look())])
        assert not violations, "\n".join(map(str, violations))
        assert "no room" in child.errors()


@KINDS
def test_a_process_killed_on_a_full_disk_loses_nothing(kind: Kind, crasher: Crasher) -> None:
    """Killed while it waits for room: only the open steps run again."""
    with kind(crasher) as full:
        child = full.start()
        full.wait_full(child)
        child.send(signal.SIGKILL)
        child.wait(5)
        first = full.life(child, full.look())
        again = full.start(room=True)
        full.make_room(again)

        assert again.wait(30) == 0, again.errors()
        second = full.life(again, full.look(), len(first.records))
        violations = full.check([first, second])
        assert not violations, "\n".join(map(str, violations))
