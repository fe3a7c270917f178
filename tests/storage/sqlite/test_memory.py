"""Out of memory, and whatever else a batch raises: no transaction stays open, so what is told durable is."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3

import pytest

from ergon.core.commit import Commit
from ergon.errors import LogBusy
from ergon.storage.sqlite import InMemoryExecutionLog, SqliteExecutionLog, journal
from tests.storage.kit import claimed_flow, commit, event, new_flow, register, until
from tests.storage.sqlite.children import hear, start


class Starved:
    """Stands before the writer's connection and has no memory for the statements that begin with one of `sqls`.

    `does`: it runs them all the same. `times`: how often, until there is memory again.
    """

    def __init__(self, log, *sqls, does=False, times=10_000):
        self.group = log._session._group
        self._sqls, self._does, self._times = sqls, does, times
        self.refused = 0
        self._real, self.group.connection = self.group.connection, self

    def execute(self, sql, *arguments):
        if self._times and sql.startswith(self._sqls):
            self._times -= 1
            self.refused += 1
            if self._does:
                self._real.execute(sql, *arguments)
            raise MemoryError
        return self._real.execute(sql, *arguments)

    def __getattr__(self, name):
        return getattr(self._real, name)


def on_disk(file):
    """What another process would see."""
    with contextlib.closing(sqlite3.connect(file)) as other:
        flows = [flow for (flow,) in other.execute("SELECT id FROM flows ORDER BY num")]
        return flows, other.execute("SELECT count(*) FROM events").fetchone()[0]


def is_free(file):
    """Whether another process could write."""
    with contextlib.closing(sqlite3.connect(file, isolation_level=None, timeout=0)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        return True


async def test_what_is_acknowledged_after_sqlite_ran_out_of_memory_survives_a_kill(file):
    child = start("starved", file)
    said = [hear(child), hear(child)]
    child.communicate(timeout=30)

    async with SqliteExecutionLog(file) as log:
        assert said == ["LogBusy", "written"]
        assert await log.history("f1") == [event(1), event(2), event(3)]
        assert await log.find("large-0") is None


@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize("count, sql", [(1, journal.LONE), (2, "COMMIT")], ids=["a_lone_event", "two_events"])
async def test_a_write_without_memory_at_its_end_is_looked_for_and_else_repeated(file, count, sql, landed):
    events = tuple(event(seq) for seq in range(1, count + 1))
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        Starved(log, sql, does=landed, times=1)

        await commit(log, Commit("f1", lease, events))

        assert on_disk(file) == (["f1"], count)


async def test_a_write_for_which_there_is_no_memory_says_so_and_can_be_repeated(file):
    async with SqliteExecutionLog(file) as log:
        group = Starved(log, "INSERT").group
        real = group._connect

        def connect_without_memory():
            group.connection = real()
            return Starved(log, "INSERT")

        group._connect = connect_without_memory
        with pytest.raises(LogBusy, match="not enough memory"):
            await log.create(new_flow("f1"))
        assert is_free(file)
        group._connect, group.connection = real, group.connection._real

        await log.create(new_flow("f1"))

        assert on_disk(file) == (["f1"], 0)


async def test_a_log_without_memory_to_open_its_file_again_opens_it_with_a_later_write(file):
    def connect():
        raise MemoryError

    async with SqliteExecutionLog(file) as log:
        starved = Starved(log, "INSERT", times=1)
        real, starved.group._connect = starved.group._connect, connect
        with pytest.raises(LogBusy, match="not enough memory"):
            await log.create(new_flow("f1"))
        with pytest.raises(LogBusy, match="nothing was written"):
            await log.create(new_flow("f1"))
        starved.group._connect = real

        await log.create(new_flow("f1"))

        assert on_disk(file) == (["f1"], 0)


@pytest.mark.parametrize("can_roll_back", [True, False])
async def test_a_write_that_raises_what_nobody_expects_leaves_nothing_behind(file, can_roll_back):
    def defect(tx):
        tx.run("DELETE FROM flows")
        raise KeyError("a defect")

    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        if not can_roll_back:
            Starved(log, "ROLLBACK")

        with pytest.raises(KeyError, match="a defect"):
            await log._write("defect", defect)
        assert is_free(file)
        await commit(log, Commit("f1", lease, (event(1),)))

        assert on_disk(file) == (["f1"], 1)


async def test_a_refused_write_that_cannot_be_rolled_back_keeps_no_lock_and_the_next_one_lands(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        await commit(log, Commit("f1", lease, (event(1),)))
        Starved(log, "ROLLBACK")

        with pytest.raises(LogBusy, match="nothing was written"):
            await commit(log, Commit("f1", lease, (event(1, payload='"another"'),)))
        assert is_free(file)
        await commit(log, Commit("f1", lease, (event(2),)))

        assert on_disk(file) == (["f1"], 2)


async def test_no_event_is_written_into_a_transaction_that_is_open(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log)
        await log._session.on_writer(lambda writing: writing.execute("BEGIN IMMEDIATE"))

        await commit(log, Commit("f1", lease, (event(1),)))

        assert on_disk(file) == (["f1"], 1)


async def test_a_log_in_memory_that_ran_out_of_it_keeps_what_it_had_and_goes_on():
    async with InMemoryExecutionLog() as log:
        await register(log)
        lease = await claimed_flow(log)
        Starved(log, "COMMIT", "ROLLBACK", times=2)

        with pytest.raises(LogBusy, match="not enough memory"):
            await log.create(new_flow("f2"))
        await commit(log, Commit("f1", lease, (event(1),)))
        await log.create(new_flow("f3"))

        assert await log.history("f1") == [event(1)]
        assert await log.find("f2") is None
        assert await log.find("f3") is not None


async def test_a_read_without_memory_says_so_and_the_next_one_is_answered(file):
    async with SqliteExecutionLog(file) as log:
        await log.create(new_flow("f1"))

        def starve(_):
            raise MemoryError

        with pytest.raises(LogBusy, match="not enough memory"):
            await log._session.read(starve)
        assert await log.find("f1") is not None


async def test_a_checkpoint_without_memory_keeps_no_lock_and_the_log_goes_on(file, monkeypatch):
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["message"]))
    monkeypatch.setattr("ergon.storage.sqlite.upkeep._IDLE_SECONDS", 0.05)
    async with SqliteExecutionLog(file) as log:
        starved = Starved(log, "ROLLBACK")
        await log.create(new_flow("f1"))
        await until(lambda: starved.refused or told)
        await until(lambda: is_free(file))
        await asyncio.wait_for(log.create(new_flow("f2")), 10)

        assert on_disk(file) == (["f1", "f2"], 0)
        assert not told


async def test_a_log_that_is_closed_without_memory_is_closed(file):
    log = await SqliteExecutionLog(file).connect()
    await log.create(new_flow("f1"))
    Starved(log, "DELETE FROM landed", "BEGIN", "PRAGMA")

    await asyncio.wait_for(log.close(), 10)

    assert on_disk(file) == (["f1"], 0)
