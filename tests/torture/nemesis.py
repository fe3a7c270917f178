"""Kill, freeze and respawn workers and clients by a seeded plan, then heal, drain, and hand over the evidence.

Nothing of Ergon is imported here: what this process sees it sees with plain drivers and in the ledger.
"""

from __future__ import annotations

import hashlib
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.crash.checker import Life
from tests.crash.ledger import Ledger, Record, read_ledger
from tests.crash.processes import Child, Zygote
from tests.crash.snapshot import Snapshot
from tests.torture.stores import Store

SECONDS_BETWEEN_GLIMPSES: Final = 1.0
MODULES: Final = ("tests.torture.workload", "tests.crash.warm", "tests.crash.planted")
HEAL_SECONDS_MAX: Final = 90.0
STORE_FAULTS: Final = 0.05
"""How many of the faults are the store's own, where it can have any."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a run goes. The same plan draws the same faults; when they hit is up to the machine."""

    seed: int = 1
    kills: int = 1_000
    """Stop after this many kills of workers ..."""
    seconds: float = 3_600.0
    """... or after this time, whichever comes first."""
    workers: int = 4
    clients: int = 3
    lease_seconds: float = 1.0
    bug: str = ""
    store: str = "sqlite"


@dataclass
class Evidence:
    """What a run leaves for the checker."""

    plan: Plan
    folder: Path
    records: list[Record]
    final: Snapshot
    glimpses: list[tuple[str, int, str]]
    """Histories seen during the run: a flow, how many events it had, and their digest."""
    counts: Counter[str]
    stderr: str
    problems: list[str] = field(default_factory=list)
    """What went wrong with the processes themselves."""
    seconds: float = 0.0
    store: str = ""
    """What the log was kept in."""

    @property
    def life(self) -> Life:
        """The whole run as one life of many processes."""
        return Life(self.records, self.final, killed=False, status=0, stderr=self.stderr)


class Nemesis:
    """One run."""

    def __init__(self, plan: Plan, folder: Path, zygote: Zygote, store: Store) -> None:
        self.plan, self.folder, self.zygote, self.store = plan, folder, zygote, store
        self.rng = random.Random(plan.seed)
        self.ledger = Ledger(folder / "ledger")
        self.workers: dict[int, Child] = {}
        self.clients: dict[int, Child] = {}
        self.frozen: list[tuple[float, Child, int]] = []
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.glimpses: list[tuple[str, int, str]] = []
        self._read = 0
        self._open: dict[int, set[str]] = {}
        self._faults = 0
        self._leaving: set[int] = set()

    def run(self) -> Evidence:
        """Torment, heal, drain; return the evidence."""
        started = time.monotonic()
        for number in range(self.plan.workers):
            self._spawn_worker(number)
        for number in range(self.plan.clients):
            self._spawn_client(number)
        glimpse_at = started + 1.0
        while self.counts["kills"] < self.plan.kills and time.monotonic() - started < self.plan.seconds:
            self._idle(self.rng.uniform(*self.store.pause))
            self._watch()
            self._fault()
            if time.monotonic() > glimpse_at:
                self._glimpse()
                glimpse_at = time.monotonic() + SECONDS_BETWEEN_GLIMPSES
        self._heal()
        self._drain()
        stderr = "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("stderr-*")))
        self._watch()
        final = self.store.snapshot()
        records = read_ledger(self.folder / "ledger")
        evidence = Evidence(
            self.plan, self.folder, records, final, self.glimpses, self.counts, stderr, self.problems
        )
        evidence.store = self.store.facts
        evidence.seconds = time.monotonic() - started
        return evidence

    # -- processes -----------------------------------------------------------------------------------------

    def _spawn_worker(self, number: int) -> None:
        self.workers[number] = self.zygote.fork(
            "tests.torture.workload:worker",
            err=self.folder / f"stderr-worker-{number}",
            folder=self.folder,
            url=self.store.url,
            name=f"w{number}",
            lease_seconds=self.plan.lease_seconds,
            bug=self.plan.bug,
        )
        self.counts["workers started"] += 1

    def _spawn_client(self, number: int) -> None:
        self.clients[number] = self.zygote.fork(
            "tests.torture.workload:client",
            err=self.folder / f"stderr-client-{number}",
            folder=self.folder,
            url=self.store.url,
            number=number,
            seed=self.plan.seed,
        )
        self.counts["clients started"] += 1

    def _idle(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.zygote.pump(left)
        self._thaw(time.monotonic())
        for kind, children, spawn in (
            ("worker", self.workers, self._spawn_worker),
            ("client", self.clients, self._spawn_client),
        ):
            for number, child in list(children.items()):
                if child.status is not None:
                    drained = (
                        child.status in (0, -signal.SIGTERM) and child.pid in self._leaving
                    )  # -: it had hardly started
                    if child.status != -signal.SIGKILL and not drained:
                        self.problems.append(f"{kind} {number} (pid {child.pid}) ended with {child.status}")
                    spawn(number)

    # -- faults --------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        if self.store.faults and self.rng.random() < STORE_FAULTS:
            name = self.rng.choice(sorted(self.store.faults))
            self.store.faults[name]()
            self.counts[name] += 1
            return
        draw = self.rng.random()
        number = self._victim()
        if draw < 0.66:
            self._kill(self.workers[number], "worker")
        elif draw < 0.84:
            longer = self.rng.random() < 0.6
            lease = self.plan.lease_seconds
            seconds = self.rng.uniform(1.3, 2.2) * lease if longer else self.rng.uniform(0.05, 0.5) * lease
            self._freeze(self.workers[number], seconds, "zombie" if longer else "pause")
        elif draw < 0.88:
            self._drain_one(self.workers[number])
        elif draw < 0.97:
            self._kill(self.clients[self.rng.randrange(self.plan.clients)], "client")
        else:
            for child in self.workers.values():
                self._kill(child, "worker")

    def _victim(self) -> int:
        """Half of the time somebody in the middle of a step."""
        frozen = {child.pid for _, child, _ in self.frozen}  # let them wake up: that is what is to be seen
        awake = [number for number, child in self.workers.items() if child.pid not in frozen]
        busy = [number for number in awake if self._open.get(self.workers[number].pid)]
        if busy and self.rng.random() < 0.5:
            return self.rng.choice(busy)
        return self.rng.choice(awake or list(self.workers))

    def _kill(self, child: Child, kind: str) -> None:
        self._faults += 1
        self.ledger.write("NEM", what="kill", phase="begin", fault=self._faults, target=child.pid, who=kind)
        child.send(signal.SIGKILL)
        child.wait(10)
        self.ledger.write("NEM", what="kill", phase="end", fault=self._faults, target=child.pid, who=kind)
        self.counts["kills" if kind == "worker" else "client kills"] += 1
        if self._open.get(child.pid):
            self.counts["kills with a step open"] += 1

    def _drain_one(self, child: Child) -> None:
        """What a deploy does: ask it to end, and start another when it has."""
        if child.pid in self._leaving:
            return
        self._faults += 1
        self._leaving.add(child.pid)
        self.ledger.write("NEM", what="drain", phase="begin", fault=self._faults, target=child.pid)
        self.ledger.write("NEM", what="drain", phase="end", fault=self._faults, target=child.pid)
        child.send(signal.SIGTERM)
        self.counts["drains"] += 1

    def _freeze(self, child: Child, seconds: float, kind: str) -> None:
        if any(child is other for _, other, _ in self.frozen):
            return
        self._faults += 1
        self.ledger.write("NEM", what=kind, phase="begin", fault=self._faults, target=child.pid)
        if not child.send(signal.SIGSTOP) or not child.wait_stopped(5):
            return
        if not self.store.can_write():
            # Stopped inside a transaction, when nobody can write: a test of its own looks at that. Here it would
            # only stop everything.
            child.send(signal.SIGCONT)
            self.ledger.write("NEM", what=kind, phase="end", fault=self._faults, target=child.pid)
            self.counts["freezes that hit the write lock"] += 1
            return
        self.frozen.append((time.monotonic() + seconds, child, self._faults))
        self.counts[f"{kind}s"] += 1
        self._watch()
        if self._open.get(child.pid):
            self.counts[f"{kind}s with a step open"] += 1

    def _thaw(self, before: float) -> None:
        for until, child, fault in list(self.frozen):
            if until <= before or child.status is not None:
                child.send(signal.SIGCONT)
                self.ledger.write("NEM", what="thaw", phase="end", fault=fault, target=child.pid)
                self.frozen.remove((until, child, fault))

    # -- looking -------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Learn who is in the middle of a step."""
        for record in read_ledger(self.folder / "ledger", self._read):
            self._read += 1
            if record.kind == "BEGIN":
                self._open.setdefault(record.pid, set()).add(record["token"])
            elif record.kind == "END":
                self._open.setdefault(record.pid, set()).discard(record["token"])

    def _glimpse(self) -> None:
        some = self.store.some(self.rng)
        self.glimpses += [(id, len(events), digest(events)) for id, events in some.items() if events]

    # -- the end -------------------------------------------------------------------------------------------

    def _heal(self) -> None:
        """No more faults: everything that was started has to come to its end."""
        self._thaw(float("inf"))
        (self.folder / "stop").touch()
        until = time.monotonic() + HEAL_SECONDS_MAX
        left = dict(self.clients)
        while left and time.monotonic() < until:
            self.zygote.pump(0.05)
            for number, child in list(left.items()):
                if child.status == 0:
                    del left[number]
                elif child.status is not None:
                    if child.status != -signal.SIGKILL:
                        self.problems.append(f"client {number} ended with {child.status}")
                    self._spawn_client(number)
                    left[number] = self.clients[number]
            for number, child in list(self.workers.items()):
                if child.status is not None:
                    self._spawn_worker(number)
        for number, child in left.items():
            self.problems.append(f"client {number} still waits {HEAL_SECONDS_MAX:g} s after the last fault")
            child.send(signal.SIGABRT)
            child.wait(5)

    def _drain(self) -> None:
        self._glimpse()
        for child in self.workers.values():
            child.send(signal.SIGTERM)
        for number, child in self.workers.items():
            if child.wait(20) != 0:
                self.problems.append(f"worker {number} did not drain: {child.status}")
                child.send(signal.SIGABRT)
                child.wait(5)


def digest(events: list[Any]) -> str:
    """A short digest of a history."""
    return hashlib.sha256(repr(events).encode()).hexdigest()[:16]
