"""A server's clock that is set back: what was to end then must not wait for the clock to come there again."""

from __future__ import annotations

import asyncpg
import pytest

from ergon import PostgresExecutionLog
from ergon.testing.conformance.kit import claim_one, claimed_flow, register, until

LEASE_SECONDS = 0.3
SET_BACK = "UPDATE workers SET lease_expires_at = lease_expires_at + 3600"
"""As all leases look once the server's clock was set back by an hour."""


@pytest.fixture
async def log(url: str):
    async with PostgresExecutionLog(url, require="D1") as opened:
        yield opened


async def set_back(url: str) -> None:
    connection = await asyncpg.connect(url, server_settings={"search_path": "ergon"})
    await connection.execute(SET_BACK)
    await connection.close()


async def test_a_dead_worker_is_found_within_its_lease(url, log):
    await register(log, "dead", lease_seconds=LEASE_SECONDS)
    await register(log, "other")
    await claimed_flow(log, "f1", "dead")
    await set_back(url)

    dead = await until(log.reap)

    assert [worker.id for worker in dead] == ["dead"]
    assert (await claim_one(log, "f1", "other")).flow.owner == "other"


async def test_no_living_worker_is_taken_for_dead_and_its_lease_is_as_long_as_it_asked(url, log):
    await register(log, "living", lease_seconds=60)
    await set_back(url)

    assert await log.reap() == []

    (worker,) = await log.workers()
    assert 55 < worker.lease_expires_at - log.now() <= 60.5
    renewed = await log.renew("living", lease_seconds=90)
    assert 85 < renewed - log.now() <= 90.5
    assert await log.reap() == []
