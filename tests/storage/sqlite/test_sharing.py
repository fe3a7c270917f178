"""Several processes on one file."""

from __future__ import annotations

import asyncio
import sqlite3
import time

import pytest

from ergon.core.commit import Commit, Hint
from ergon.errors import LogBusy
from ergon.storage.sqlite import SqliteExecutionLog, migrations
from ergon.storage.sqlite.turnstile import Turnstile
from tests.storage.kit import (
    ROUNDS_MAX,
    best_median,
    claim,
    claimed_flow,
    commit,
    event,
    new_flow,
    register,
    until,
)
from tests.storage.sqlite.children import finish, hear, say, start


def test_four_writers_share_the_write_lock_fairly(file):
    """With SQLite's own waiting one of them gets most and another waits for seconds."""
    children = [start("write_for", file, f"w{n}", 1.5) for n in range(4)]
    for child in children:
        assert hear(child) == "ready"
    for child in children:
        say(child)

    results = [hear(child).split() for child in children]

    for child in children:
        child.communicate()
    counts = [int(count) for count, _ in results]
    assert min(counts) > 0.3 * max(counts), results
    assert max(float(longest) for _, longest in results) < 1.0, results


async def test_a_lock_held_too_long_by_another_process_is_busy_and_writing_goes_on_after(file):
    async with SqliteExecutionLog(file, busy_timeout_seconds=0.3) as log:
        await register(log)
        lease = await claimed_flow(log)
        child = start("hold", file)
        assert hear(child) == "held"

        with pytest.raises(LogBusy, match=r"nothing was written\. Try again; if it stays so, end"):
            await commit(log, Commit("f1", lease, (event(1),)))
        assert await log.find("f1") is not None
        say(child)
        child.communicate()

        await commit(log, Commit("f1", lease, (event(1),)))


async def test_another_process_hears_of_a_change_within_20_ms(file):
    async with SqliteExecutionLog(file) as log:
        child = start("listen", file, ROUNDS_MAX * 5)
        assert hear(child) == "ready"

        async def delay():
            await asyncio.sleep(0.03)
            await log.create(new_flow())
            written = time.monotonic()
            return float(await asyncio.to_thread(hear, child)) - written

        best = await best_median(delay, enough=0.02)
        child.kill()
        child.communicate()

    assert best < 0.02


def test_an_idle_log_costs_less_than_a_hundredth_of_a_processor(file):
    child = start("idle", file, 4)
    used = float(hear(child))
    child.communicate()

    assert used < 0.04


async def test_looking_for_work_and_finding_none_writes_nothing(file):
    """Else two idle workers would wake each other for ever."""
    async with SqliteExecutionLog(file) as one, SqliteExecutionLog(file) as two:
        await register(one)
        version = await two._session.on_writer(_data_version)

        for _ in range(5):
            assert await claim(one) == []
            assert await one.reap() == []

        assert await two._session.on_writer(_data_version) == version


def _data_version(connection):
    return connection.execute("PRAGMA data_version").fetchone()


async def test_two_logs_in_one_process_see_each_other(file):
    async with SqliteExecutionLog(file) as one, SqliteExecutionLog(file) as two:
        heard: list[Hint] = []
        two.subscribe(heard.append)

        await one.create(new_flow("f1"))

        assert await two.find("f1") is not None
        await until(lambda: any(hint.elsewhere for hint in heard))


async def test_a_file_that_another_process_makes_a_log_while_we_look_at_it_is_not_taken_for_a_strangers(file):
    """Half of the look before the other's first commit, half after it: neither a new file nor a log."""
    looking, other = (sqlite3.connect(file, isolation_level=None) for _ in range(2))
    other.execute("PRAGMA journal_mode=WAL")

    def interfere(statement: str) -> None:
        if "user_version" in statement and migrations.inspect(other, "") == 0:
            migrations.migrate(other, Turnstile(patience_seconds=1.0), "", 0.0)

    looking.set_trace_callback(interfere)

    assert migrations.inspect(looking, str(file)) == 0, "as it was when the look began"
    assert migrations.inspect(looking, str(file)) == migrations.migrations()[-1][0]
    looking.close()
    other.close()


async def test_a_stopped_process_in_the_turnstile_does_not_stop_the_others(file):
    import fcntl

    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("f1"))
        with file.with_name("log.db-turn").open("r+b") as turnstile:
            fcntl.flock(turnstile, fcntl.LOCK_EX)
            turnstile.write(b"\1")
            turnstile.flush()
            started = time.monotonic()
            await log.create(new_flow("f2"))
            assert time.monotonic() - started < 2.0
    finish(start("idle", file, 0))
