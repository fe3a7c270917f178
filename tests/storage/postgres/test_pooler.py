"""Behind a pooler that gives each transaction another session, everything but hints works as without one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from ergon import PostgresExecutionLog
from ergon.core.commit import Commit
from ergon.errors import LogBusy, LogRefused
from ergon.testing.conformance.kit import claim_one, commit, event, new_flow, register, signal, until
from ergon.testing.conformance.suite import for_pytest
from tests.servers import postgres
from tests.servers.pooler import Pooler
from tests.storage.postgres.conftest import database_of

# What rests on sessions, locks and snapshots; the rest of the suite is about values.
globals().update(for_pytest(("fencing", "takeover", "arrivals", "several_handles")))


@dataclass
class PooledStore:
    pooler: Pooler

    def open(self, namespace: str = "") -> PostgresExecutionLog:
        return PostgresExecutionLog(self.pooler.url, namespace=namespace, require="D1")

    async def interrupt(self) -> None:
        self.pooler.cut()


@pytest.fixture
async def pooler(own_url: str) -> AsyncIterator[Pooler]:
    async with Pooler(postgres.server().socket, database_of(own_url)) as between:
        yield between


@pytest.fixture
def store(pooler: Pooler) -> PooledStore:
    return PooledStore(pooler)


async def test_each_transaction_runs_on_another_session(pooler: Pooler) -> None:
    """Else this file would prove nothing."""
    async with PostgresExecutionLog(pooler.url, require="D1") as log:
        before = pooler.transactions
        await register(log)
        await log.create(new_flow("f1"))
        lease = (await claim_one(log, "f1")).lease
        await commit(log, Commit("f1", lease, (event(1),)))

        assert pooler.transactions - before >= 4
        assert len(pooler.used) > 1


async def test_without_the_option_the_pooler_refuses_and_the_line_says_what_to_do(pooler: Pooler) -> None:
    log = PostgresExecutionLog(pooler.url.replace("&pgbouncer=1", ""), require="D1")

    with pytest.raises((LogRefused, LogBusy), match="pgbouncer=1"):
        await log.connect()


async def test_two_logs_behind_it_hear_of_each_other_by_looking(pooler: Pooler) -> None:
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


async def test_in_its_sessions_too_commits_wait_for_the_disk(pooler: Pooler) -> None:
    """The settings of a session may be anybody's."""
    await postgres.execute(
        postgres.server().url(pooler.database),
        f"ALTER DATABASE {pooler.database} SET synchronous_commit = off",
    )
    async with PostgresExecutionLog(pooler.url, require="D1") as log:
        assert (await log.durability()).settings["synchronous_commit"] == "on"
