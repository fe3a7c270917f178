"""Behind a pooler that gives each transaction another session, everything but hints works as without one.

`ERGON_TEST_PGBOUNCER=/usr/sbin/pgbouncer` runs this file, and the whole conformance suite, behind the real one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest

from ergon import PostgresExecutionLog
from ergon.errors import LogBusy, LogRefused
from ergon.testing.conformance.kit import claim_one, new_flow, register, signal, until
from ergon.testing.conformance.suite import ALONE, SHARED, for_pytest
from tests.servers import pgbouncer, postgres
from tests.servers.pgbouncer import PgBouncer
from tests.servers.pooler import Pooler
from tests.storage.postgres.conftest import database_of

# What rests on sessions, locks and snapshots; the rest of the suite is about values.
PART = ("fencing", "takeover", "arrivals", "several_handles")
globals().update(for_pytest((*ALONE, *SHARED) if pgbouncer.VARIABLE in os.environ else PART))


@dataclass
class PooledStore:
    pooler: Pooler | PgBouncer

    def open(self, namespace: str = "") -> PostgresExecutionLog:
        return PostgresExecutionLog(self.pooler.url, namespace=namespace, require="D1")

    async def interrupt(self) -> None:
        self.pooler.cut()


def before(database: str) -> Pooler | PgBouncer:
    kind = PgBouncer if pgbouncer.VARIABLE in os.environ else Pooler
    return kind(postgres.server().socket, database)


@pytest.fixture
async def pooler(own_url: str) -> AsyncIterator[Pooler | PgBouncer]:
    async with before(database_of(own_url)) as between:
        yield between


@pytest.fixture(scope="session")
def shared_url() -> str:
    """A database for all of the conformance suite. Made before there is an event loop."""
    return asyncio.run(postgres.new_database(postgres.server().url()))


@pytest.fixture
async def store(shared_url: str) -> AsyncIterator[PooledStore]:
    async with before(database_of(shared_url)) as between:
        yield PooledStore(between)
    await postgres.clear_schema(shared_url, "ergon")


async def test_each_transaction_runs_on_another_session(pooler: Pooler | PgBouncer) -> None:
    """Else this file would prove nothing."""
    url = pooler.url.replace("&pgbouncer=1", "")
    one, other = [await asyncpg.connect(url, statement_cache_size=0) for _ in range(2)]
    await one.execute("BEGIN")
    held = await one.fetchval("SELECT pg_backend_pid()")
    beside = await other.fetchval("SELECT pg_backend_pid()")
    await one.execute("COMMIT")

    sessions = {await one.fetchval("SELECT pg_backend_pid()") for _ in range(6)}

    assert held != beside
    assert len(sessions) > 1
    await one.close()
    await other.close()


async def test_without_the_option_the_pooler_refuses_and_the_line_says_what_to_do(
    pooler: Pooler | PgBouncer,
) -> None:
    log = PostgresExecutionLog(pooler.url.replace("&pgbouncer=1", ""), require="D1")

    with pytest.raises((LogRefused, LogBusy), match="pgbouncer=1"):
        await log.connect()


async def test_two_logs_behind_it_hear_of_each_other_by_looking(pooler: Pooler | PgBouncer) -> None:
    async with (
        PostgresExecutionLog(pooler.url, require="D1") as one,
        PostgresExecutionLog(pooler.url, require="D1") as other,
    ):
        await register(one)
        await one.create(new_flow("f1"))
        await claim_one(one, "f1")
        await other.send(signal("f1"))

        async def has_arrived() -> bool:
            return bool((await one.arrivals("w1", 0))[1])

        await until(has_arrived)


async def test_in_its_sessions_too_commits_wait_for_the_disk(pooler: Pooler | PgBouncer) -> None:
    """The settings of a session may be anybody's."""
    await postgres.execute(
        postgres.server().url(pooler.database),
        f"ALTER DATABASE {pooler.database} SET synchronous_commit = off",
    )
    async with PostgresExecutionLog(pooler.url, require="D1") as log:
        assert (await log.durability()).settings["synchronous_commit"] == "on"
