"""What survives SIGKILL, frozen processes and failing disks, with real processes on a real file."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from functools import partial
from pathlib import Path

import pytest

from ergon.core.commit import Commit
from ergon.core.status import TaskStatus
from ergon.errors import LogFull
from ergon.storage.sqlite import SqliteExecutionLog, journal, migrations
from ergon.storage.sqlite.connection import Settings, open_writer
from ergon.storage.sqlite.turnstile import Turnstile
from tests.storage.kit import claim_one, claimed_flow, commit, event, new_flow, register, until
from tests.storage.sqlite.children import finish, hear, say, start


async def test_nothing_acknowledged_is_lost_when_writers_are_killed_again_and_again(file, tmp_path):
    acked = {name: tmp_path / f"{name}.acked" for name in ("a", "b", "c")}
    children = {name: start("append", file, name, acked[name]) for name in acked}
    dice = random.Random(7)
    kills = 15

    for _ in range(kills):
        name = dice.choice(sorted(children))
        before = acked[name].stat().st_size if acked[name].exists() else 0
        await until(partial(_has_grown, acked[name], before))
        time.sleep(dice.random() * 0.05)
        finish(children[name])
        children[name] = start("append", file, name, acked[name])
    for child in children.values():
        finish(child)

    async with SqliteExecutionLog(file) as log:
        total = 0
        histories = {}
        for path in acked.values():
            for line in path.read_text().splitlines():
                flow_id, seq, text = line.split()
                if flow_id not in histories:
                    histories[flow_id] = await log.history(flow_id)
                assert histories[flow_id][int(seq) - 1].payload == f'"{text}"'
                total += 1
        for history in histories.values():
            assert [one.seq for one in history] == list(range(1, len(history) + 1))
    assert total >= kills
    assert sqlite3.connect(file).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _make_a_log_and_die(file: Path, statement: int) -> None:
    """In a process of its own: make a log, and be killed when SQLite is about to run this statement."""
    count = 0

    def die(_text: str) -> None:
        nonlocal count
        count += 1
        if count == statement:
            os.kill(os.getpid(), signal.SIGKILL)

    connect = sqlite3.connect

    def counting(*arguments, **options):
        connection = connect(*arguments, **options)
        connection.set_trace_callback(die)
        return connection

    sqlite3.connect = counting  # of this process only, which ends here
    connection = open_writer(Settings(path=file))
    migrations.migrate(connection, Turnstile(patience_seconds=5), str(file), 0.0)
    connection.close()


async def test_a_process_killed_at_any_statement_while_it_makes_a_log_leaves_one_that_opens(tmp_path):
    """Also between the change to WAL, for which a new file has no journal, and the first migration."""
    kills = 0
    while True:
        file = tmp_path / f"{kills}.db"
        child = os.fork()
        if child == 0:
            try:
                _make_a_log_and_die(file, kills + 1)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)

        async with SqliteExecutionLog(file) as log:
            await log.create(new_flow("f1"))
            assert await log.find("f1") is not None
        if not os.WIFSIGNALED(status):
            break
        kills += 1

    assert kills > 20, "it dies before each statement in turn"


async def test_a_frozen_worker_that_wakes_up_writes_nothing(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        await log.create(new_flow("f1"))
        child = start("zombie", file)
        assert hear(child) == "claimed"
        say(child)
        assert hear(child) == "written"

        os.kill(child.pid, signal.SIGSTOP)
        await until(log.reap)
        lease = (await claim_one(log, "f1")).lease
        say(child)
        os.kill(child.pid, signal.SIGCONT)

        assert hear(child) == "lost"
        await commit(log, Commit("f1", lease, (event(2, '"mine"'),)))
        assert [one.payload for one in await log.history("f1")] == ['{"ok":true}', '"mine"']
        finish(child)


async def test_a_file_size_limit_stops_writes_and_loses_nothing(file):
    child = start("limited", file)
    out, err = child.communicate(timeout=30)

    assert out.split() == ["LogFull", "True", "True"], err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
async def test_a_full_disk_stops_writes_loses_nothing_and_heals(tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m tmpfs {room} 2>/dev/null"):
        pytest.skip("mounting is not allowed here")
    try:
        async with SqliteExecutionLog(room / "log.db") as log:
            await register(log)
            lease = await claimed_flow(log)
            ballast = room / "ballast"
            ballast.write_bytes(b"x" * 300_000)
            seq = 0
            with pytest.raises(LogFull):
                while seq < 1_000:
                    await commit(log, Commit("f1", lease, (event(seq + 1, '"' + "x" * 3_000 + '"'),)))
                    seq += 1
            assert len(await log.history("f1")) == seq
            ballast.unlink()
            await until(lambda: _try_commit(log, Commit("f1", lease, (event(seq + 1),))))
            assert len(await log.history("f1")) == seq + 1
    finally:
        os.system(f"umount -l {room}")


async def _try_commit(log, value):
    try:
        await commit(log, value)
    except LogFull:
        return False
    return True


@pytest.mark.parametrize("moment, landed", [("pre", 3), ("post", 4)])
async def test_a_failpoint_kills_right_before_or_right_after_the_chosen_write(file, moment, landed):
    child = start("count", file, ERGON_FAILPOINT=f"commit:4:{moment}")
    out, _ = child.communicate(timeout=30)

    assert child.returncode == -signal.SIGKILL
    assert out.split() == ["1", "2", "3"]
    async with SqliteExecutionLog(file) as log:
        assert len(await log.history("f1")) == landed
        record = await log.find("f1")
        assert record is not None
        assert record.status is TaskStatus.RUNNING


async def test_a_failpoint_trace_tells_how_many_writes_there_are(file, tmp_path):
    trace = tmp_path / "trace"
    child = start("count", file, ERGON_FAILPOINT_TRACE=str(trace))
    child.communicate(timeout=30)

    names = ["register", "create", "claim"] + ["commit"] * 7
    assert trace.read_text().splitlines() == [f"{n} {name}" for n, name in enumerate(names, 1)]


ONE_OR_MORE = pytest.mark.parametrize("count", [1, 2], ids=["a_lone_event", "two_events"])
"""A lone event is a transaction by itself; two need a COMMIT."""


@ONE_OR_MORE
async def test_an_io_error_after_the_commit_landed_is_found_out_by_reading(file, count):
    """The outcome of a failed COMMIT is unknown: the log reopens the file and looks."""
    events = tuple(event(seq) for seq in range(1, count + 1))
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        flaky = FlakyConnection(log._session._group, landed=True)

        await commit(log, Commit("f1", lease, events))
        assert flaky.failed
        flaky.arm()
        assert await log.create(new_flow("f2")) is None

        assert await log.history("f1") == [*events]
        assert await log.find("f2") is not None


@ONE_OR_MORE
async def test_an_io_error_before_the_commit_landed_is_tried_once_more(file, count):
    events = tuple(event(seq) for seq in range(1, count + 1))
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        flaky = FlakyConnection(log._session._group, landed=False)

        await commit(log, Commit("f1", lease, events))

        assert flaky.failed
        assert await log.history("f1") == [*events]


class FlakyConnection:
    """Stands before the writer's connection and fails one COMMIT, after or instead of doing it."""

    def __init__(self, group, *, landed):
        self._group, self._landed = group, landed
        self.arm()

    def arm(self):
        self.failed = False
        self._real = self._group.connection
        self._group.connection = self

    def execute(self, sql, *arguments):
        if sql in ("COMMIT", journal.LONE) and not self.failed:
            self.failed = True
            if self._landed:
                self._real.execute(sql, *arguments)
            elif sql == "COMMIT":
                self._real.execute("ROLLBACK")
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error
        return self._real.execute(sql, *arguments)

    def __getattr__(self, name):
        return getattr(self._real, name)


def _has_grown(path: Path, before: int) -> bool:
    return path.exists() and path.stat().st_size > before
