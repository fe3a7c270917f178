"""What a worker's first claim costs on connections that are new: it stands between a crash and the next step."""

from __future__ import annotations

import asyncio
import math

import asyncpg
import pytest

from ergon.core.commit import ClaimRequest
from ergon.storage.postgres.driver import Connection
from ergon.testing.conformance.kit import new_flow, register, until
from tests.storage.postgres.conftest import acts


async def sessions(url: str) -> int:
    """How many sessions of ours the server has for this database, but for the one that asks."""
    connection = await asyncpg.connect(url)
    try:
        count: int = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        return count
    finally:
        await connection.close()


async def test_a_claim_asks_the_server_about_no_types(log, line):
    """The driver does, once a connection, about arrays of anything but texts; that takes longer than the claim."""
    await register(log)
    await log.create(new_flow("f1"))
    before = len(line.saw)

    (claimed,) = await log.claim(ClaimRequest(worker="w1", names=("order",), timeouts={"order": 60.0}))

    assert claimed.flow.deadline_at == claimed.flow.started_at + 60.0
    assert not [sql for sql in acts(line, before) if "pg_type" in sql]


@pytest.mark.parametrize("seconds", [0.1 + 0.2, 1e-9, 1e9 + 0.1, 30, math.nextafter(60, 61)])
async def test_a_timeout_arrives_to_the_last_digit(log, seconds):
    await register(log)
    await log.create(new_flow("f1"))

    (claimed,) = await log.claim(ClaimRequest(worker="w1", names=("order",), timeouts={"order": seconds}))

    assert claimed.flow.deadline_at == claimed.flow.started_at + seconds


@pytest.mark.parametrize("has_read", [False, True])
async def test_a_worker_that_registers_has_all_its_connections_before_it_claims(log, own_url, has_read):
    """For commits, to listen, for leases, and two for everything else, whoever used one of these before."""
    if has_read:
        await log.durability()
    await until(lambda: _are(own_url, 2 + has_read))

    await register(log)

    await until(lambda: _are(own_url, 5))


async def test_whoever_comes_next_uses_the_connection_that_was_used_first(log, line):
    """What was asked there before is prepared. The one that became free last may have been used for other things."""
    await register(log)
    await until(lambda: _greetings(line) == 5)
    first_ends, second_ends = asyncio.Event(), asyncio.Event()
    first = asyncio.ensure_future(log._session.read(lambda one: _pid(one, first_ends)))
    second = asyncio.ensure_future(log._session.read(lambda one: _pid(one, second_ends)))
    first_ends.set()
    pid = await first
    second_ends.set()
    assert await second != pid

    assert await log._session.read(lambda one: _pid(one, second_ends)) == pid


async def _pid(connection: Connection, ends: asyncio.Event) -> int:
    await ends.wait()
    row = await connection.fetchrow("SELECT pg_backend_pid()")
    assert row is not None
    return int(row[0])


async def _are(url: str, count: int) -> bool:
    return await sessions(url) == count


def _greetings(line) -> int:
    return sum("server_version_num" in sql for sql in line.saw)
