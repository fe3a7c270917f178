"""A worker is frozen beyond its lease and wakes up: its flow has gone on elsewhere, its writes are refused.

Real processes on one file. The owner stops itself by SIGSTOP at a chosen point (or is stopped from outside while it
waits), another worker takes the flow over once the lease is over, and ends it. Then the owner is woken: it writes
nothing, says that it lost its lease, and carries on as a new incarnation, which must run the next flow.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.crash.checker import Expected, Life, check
from tests.crash.crashing import RUN, Crasher
from tests.crash.ledger import Ledger, Record, read_ledger
from tests.crash.processes import Child, Zygote
from tests.crash.scenarios import SHARED
from tests.crash.snapshot import Row, Snapshot, read_snapshot

LOST = "lost its lease"
PATIENCE_SECONDS = 15.0
VOID = "this run is void and writes nothing more"


class Town:
    """One log and the processes on it."""

    def __init__(self, zygote: Zygote, folder: Path, bug: str = "") -> None:
        self.zygote, self.folder, self.bug = zygote, folder, bug
        self.log = folder / "log.db"
        self.children: list[Child] = []

    def start(self, scenario: str, role: str, name: str, **more: Any) -> Child:
        child = self.zygote.fork(
            RUN,
            err=self.folder / f"stderr-{name}",
            scenario=scenario,
            folder=self.folder,
            role=role,
            name=name,
            bug=self.bug,
            **more,
        )
        self.children.append(child)
        return child

    def kill(self) -> None:
        for child in self.children:
            child.send(signal.SIGKILL)
        for child in self.children:
            child.wait(5)

    @property
    def records(self) -> list[Record]:
        return read_ledger(self.folder / "ledger")

    def now(self) -> Snapshot:
        return read_snapshot(self.log)

    def until(self, what: str, seen: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while not seen():
            if time.monotonic() > give_up_at:
                raise AssertionError(f"in vain for {PATIENCE_SECONDS} s: {what}\n{self}")
            self.zygote.pump(0.01)

    def drain(self, *workers: Child) -> None:
        for worker in workers:
            worker.send(signal.SIGTERM)
        for worker in workers:
            assert worker.wait(30) == 0, f"it did not drain\n{self}\n{worker.errors()}"

    def verdict(self, *scenarios: str) -> None:
        labels = {id: found for name in scenarios for id, found in SHARED[name].labels.items()}
        life = Life(self.records, self.now(), killed=False, status=0)
        violations = check([life], Expected(labels=labels, shared=True))
        assert not violations, "\n".join([*map(str, violations), str(self)])

    def __str__(self) -> str:
        errors = [f"{path.name}: {path.read_text()[-1500:]}" for path in sorted(self.folder.glob("stderr-*"))]
        rows = [
            f"{id}: {row['status']} {row['owner']} {row['epoch']}" for id, row in self.now().flows.items()
        ]
        return "\n".join([str(self.folder), *map(str, self.records), *rows, *errors])


@pytest.fixture
def town(crasher: Crasher, request: pytest.FixtureRequest) -> Iterator[Town]:
    folder = crasher.folder / "town"
    folder.mkdir()
    town = Town(crasher.zygote, folder)
    failed = request.session.testsfailed
    yield town
    town.kill()
    if request.session.testsfailed == failed:
        shutil.rmtree(folder)


def take_over(town: Town, owner: Child, scenario: str, helper: str = "") -> None:
    """From a stopped owner to the end: the other worker ends the flow, the owner wakes up and runs the next."""
    other = town.start(scenario, "worker", "other")
    client = town.start(helper, "client", "helper") if helper else None
    town.until("the other worker ends the flow", lambda: town.now().done("f"))
    town.until("the owner is declared dead", lambda: incarnations(town.now(), "owner")[0]["state"] == "dead")
    before = town.now()

    owner.send(signal.SIGCONT)
    town.until("the owner says that it lost its lease", lambda: LOST in owner.errors())
    town.drain(other)
    again = town.start("another", "client", "again")
    town.until("the owner runs the next flow as a new incarnation", lambda: again.status is not None)

    town.drain(owner)
    assert client is None or client.wait(5) == 0
    after = town.now()
    assert after.events["f"] == before.events["f"], f"the zombie wrote\n{town}"
    assert after.flows["f"] == before.flows["f"], f"the zombie wrote\n{town}"
    states = [worker["state"] for worker in incarnations(after, "owner")]
    assert sorted(states) == ["dead", "stopped"], f"one incarnation was lost, the next one retired: {states}"
    town.verdict(scenario, "another")


def incarnations(rows: Snapshot, name: str) -> list[Row]:
    return [worker for worker in rows.workers.values() if worker["name"] == name]


def begins(town: Town, label: str) -> list[Record]:
    return [r for r in town.records if r.kind == "BEGIN" and r["label"] == label and r["flow"] == "f"]


def test_an_owner_frozen_in_a_step_body_is_overtaken_and_its_result_refused(town: Town) -> None:
    """The effect happens twice, which nobody can prevent; both have the same key, and one result is kept."""
    owner = town.start("shared-body", "worker", "owner")
    client = town.start("shared-body", "client", "client")
    assert owner.wait_stopped(30), town

    take_over(town, owner, "shared-body")

    assert client.wait(5) == 0
    first, second = begins(town, "b-body")
    assert first["key"] == second["key"]
    assert (first.pid, first["epoch"], second["epoch"]) == (owner.pid, 1, 2)
    assert second["token"] in town.now().flows["f"]["output"]
    assert VOID in owner.errors()
    assert {label: len(begins(town, label)) for label in "ac"} == {"a": 1, "c": 1}


def test_an_owner_that_wakes_up_while_the_other_runs_the_same_step_is_refused(town: Town) -> None:
    """Here no event of the other's stands in the way yet: only the fence does."""
    owner = town.start("shared-race", "worker", "owner")
    client = town.start("shared-race", "client", "client")
    assert owner.wait_stopped(30), town
    other = town.start("shared-race", "worker", "other")
    town.until("the other begins the step", lambda: len(begins(town, "b-body-slow")) == 2)

    owner.send(signal.SIGCONT)
    town.until("the flow ends", lambda: town.now().done("f"))

    assert client.wait(5) == 0
    town.drain(owner, other)
    _, second = begins(town, "b-body-slow")
    assert second.pid == other.pid
    assert second["token"] in town.now().flows["f"]["output"], town
    assert VOID in owner.errors()
    town.verdict("shared-race")


@pytest.mark.parametrize(
    "point,repeated",
    [
        ("claim:1:post", ""),  # it owns the flow and does not know
        ("commit:1:pre", "a"),
        ("commit:1:post", ""),
        ("commit:2:pre", "b"),
        ("commit:2:post", ""),
        ("commit:3:pre", "c"),
        ("commit:4:pre", ""),  # with the flow's result
    ],
)
def test_an_owner_frozen_at_a_write_is_overtaken_and_the_write_refused(
    point: str, repeated: str, town: Town
) -> None:
    """Frozen before a commit, its step is open and runs again. Frozen after it, nothing runs again.

    The flow is there before its owner is, so that the owner's first claim is the one that takes it.
    """
    client = town.start("shared", "client", "client")
    town.until("the flow is there", lambda: "f" in town.now().flows)
    owner = town.start("shared", "worker", "owner", freeze=point)
    assert owner.wait_stopped(30), town

    take_over(town, owner, "shared")

    assert client.wait(5) == 0
    counts = {label: len(begins(town, label)) for label in "abc"}
    assert counts == {label: 1 + (label == repeated) for label in "abc"}, town


@pytest.mark.parametrize("point", ["renew:1:pre", "renew:1:post"])
def test_an_owner_frozen_at_a_heartbeat_cannot_come_back_to_life(point: str, town: Town) -> None:
    """A renewal that arrives after the lease was taken must not give it back."""
    owner = town.start("shared-idle", "worker", "owner", freeze=point)
    client = town.start("shared-idle", "client", "client")
    assert owner.wait_stopped(30), town

    take_over(town, owner, "shared-idle", helper="shared-signal")

    assert client.wait(5) == 0
    assert {label: len(begins(town, label)) for label in "ac"} == {"a": 1, "c": 1}


def test_an_owner_frozen_while_idle_is_overtaken(town: Town) -> None:
    """Stopped from outside, at no special point.

    That may hit while it holds SQLite's write lock, when nobody can write, so it is let go and stopped again.
    """
    owner = town.start("shared-idle", "worker", "owner")
    client = town.start("shared-idle", "client", "client")
    town.until("the flow waits", lambda: "signal" in town_reason(town))
    stop_without_lock(town, owner)

    take_over(town, owner, "shared-idle", helper="shared-signal")

    assert client.wait(5) == 0
    assert {label: len(begins(town, label)) for label in "ac"} == {"a": 1, "c": 1}


def test_an_owner_frozen_with_the_write_lock_delays_all_and_harms_none(town: Town) -> None:
    """SQLite's write lock belongs to the process: while its holder is frozen, nobody can write, not even to declare
    it dead. So no lease is taken from it however late it is, other workers wait (at most the busy timeout of 30 s,
    then they log and try again), and readers go on. When it wakes its transaction lands, rightly: it still owned the
    flow. After that either it renews first and goes on, or the other's reaper comes first and the flow moves on; no
    step that was committed runs again in either case.
    """
    owner = town.start("shared", "worker", "owner", freeze="inside")
    client = town.start("shared", "client", "client")
    assert owner.wait_stopped(30), town
    assert not can_write(town.log)
    other = town.start("shared", "worker", "other")
    time.sleep(1.2)  # more than two leases

    assert not town.now().done("f"), "reading needs no lock"
    assert town.now().flows["f"]["owner"].startswith("owner#")
    owner.send(signal.SIGCONT)
    town.until("the flow ends", lambda: town.now().done("f"))

    assert client.wait(5) == 0
    town.drain(other, owner)
    town.verdict("shared")
    assert {label: len(begins(town, label)) for label in "ab"} == {"a": 1, "b": 1}


def test_a_worker_frozen_with_nobody_to_take_over_goes_on_where_it_stood(town: Town) -> None:
    """As a laptop that slept: it must not declare itself dead and run its open steps again."""
    worker = town.start("shared-body", "worker", "worker", options={"reap_seconds": 0.002})
    client = town.start("shared-body", "client", "client")
    assert worker.wait_stopped(30), town
    time.sleep(1.0)  # two leases

    worker.send(signal.SIGCONT)

    assert client.wait(30) == 0, town
    town.drain(worker)
    assert {label: len(begins(town, label)) for label in ("a", "b-body", "c")} == {
        "a": 1,
        "b-body": 1,
        "c": 1,
    }
    assert [worker["state"] for worker in town.now().workers.values()] == ["stopped"]
    assert LOST not in worker.errors()
    town.verdict("shared-body")


def test_a_worker_whose_step_blocks_the_event_loop_keeps_its_flow(town: Town) -> None:
    """For more than three leases nothing runs there but threads. One of them renews, so the body runs once."""
    owner = town.start("shared-blocked", "worker", "owner")
    client = town.start("shared-blocked", "client", "client")
    town.until("the step begins", lambda: bool(begins(town, "b-blocked")))
    other = town.start("shared-blocked", "worker", "other")
    town.until("the flow ends", lambda: town.now().done("f"))

    assert client.wait(5) == 0
    town.drain(owner, other)
    (begun,) = begins(town, "b-blocked")
    assert begun.pid == owner.pid
    assert begun["token"] in town.now().flows["f"]["output"]
    assert [worker["state"] for worker in town.now().workers.values()] == ["stopped", "stopped"], town
    assert LOST not in owner.errors() + other.errors()
    said = owner.errors().split("has kept its event loop for")
    assert len(said) == 3, f"once it is slow, and once it is over the lease\n{town}"
    assert "step `act_frozen` of flow f" in said[0]
    assert "longer than its worker's lease of 0.8 s" in said[2]
    assert "in act_frozen\n    time.sleep(BLOCKED_SECONDS)" in said[1]
    town.verdict("shared-blocked")


def test_a_worker_killed_while_its_event_loop_is_blocked_is_overtaken(town: Town) -> None:
    owner = town.start("shared-blocked", "worker", "owner")
    client = town.start("shared-blocked", "client", "client")
    town.until("the step begins", lambda: bool(begins(town, "b-blocked")))
    other = town.start("shared-blocked", "worker", "other")
    time.sleep(1.0)  # a thread has renewed the lease by now
    note_fault(town, owner, "kill")
    owner.send(signal.SIGKILL)
    town.until("the flow ends", lambda: town.now().done("f"))

    assert client.wait(5) == 0
    town.drain(other)
    assert [begun["epoch"] for begun in begins(town, "b-blocked")] == [1, 2]
    town.verdict("shared-blocked")


@pytest.mark.parametrize("point", ["keep:1:pre", "keep:1:post", "keep:2:pre", ""])
def test_a_worker_frozen_while_its_event_loop_is_blocked_is_overtaken(point: str, town: Town) -> None:
    """The thread that renews is frozen too; what it wrote when it woke up gave nothing back."""
    owner = town.start("shared-blocked", "worker", "owner", freeze=point)
    client = town.start("shared-blocked", "client", "client")
    if not point:
        town.until("the step begins", lambda: bool(begins(town, "b-blocked")))
        time.sleep(1.0)
        note_fault(town, owner, "stop")
        stop_without_lock(town, owner)
    assert owner.wait_stopped(30), town

    take_over(town, owner, "shared-blocked")

    assert client.wait(5) == 0
    assert {label: len(begins(town, label)) for label in ("a", "b-blocked", "c")} == {
        "a": 1,
        "b-blocked": 2,
        "c": 1,
    }


def test_two_workers_leave_each_other_alone(town: Town) -> None:
    """Nobody is frozen: no lease is lost, nothing is done twice."""
    workers = [town.start("shared", "worker", name) for name in ("owner", "other")]
    town.until("both are there", lambda: len(town.now().workers) == 2)
    clients = [town.start(name, "client", name) for name in ("shared", "another")]

    assert [client.wait(PATIENCE_SECONDS) for client in clients] == [0, 0], town
    time.sleep(0.6)  # longer than a lease
    town.drain(*workers)
    assert [worker["state"] for worker in town.now().workers.values()] == ["stopped", "stopped"], town
    town.verdict("shared", "another")


def town_reason(town: Town) -> str:
    row = town.now().flows.get("f")
    return str(row["reason"]) if row else ""


def note_fault(town: Town, child: Child, what: str) -> None:
    """For the checker: what happens to this process from outside."""
    Ledger(town.folder / "ledger").write("NEM", what=what, target=child.pid)


def stop_without_lock(town: Town, child: Child) -> None:
    for _ in range(100):
        child.send(signal.SIGSTOP)
        assert child.wait_stopped(5)
        if can_write(town.log):
            return
        child.send(signal.SIGCONT)
        time.sleep(0.003)
    raise AssertionError(f"always stopped inside a transaction\n{town}")


def can_write(log: Path) -> bool:
    with contextlib.closing(sqlite3.connect(log, timeout=0.2, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
        return True
