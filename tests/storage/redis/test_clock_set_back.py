"""A server's clock that is set back: what was to end then must not wait for the clock to come there again."""

from __future__ import annotations

from ergon.storage.redis import RedisExecutionLog
from tests.storage.kit import claim_one, claimed_flow, register, until

LEASE_SECONDS = 0.3


def set_back(server, prefix):
    """As all leases look once the server's clock was set back by an hour."""
    with server.client() as client:
        for key in client.scan_iter(f"*{prefix}*:worker:*"):
            ends = float(client.hget(key, "lease_expires_at"))
            client.hset(key, "lease_expires_at", repr(ends + 3600))


async def test_a_dead_worker_is_found_within_its_lease(own_server, prefix):
    async with RedisExecutionLog(own_server.url, prefix=prefix) as log:
        await register(log, "dead", lease_seconds=LEASE_SECONDS)
        await register(log, "other")
        await claimed_flow(log, "f1", "dead")
        set_back(own_server, prefix)

        dead = await until(log.reap)

        assert [worker.id for worker in dead] == ["dead"]
        assert (await claim_one(log, "f1", "other")).flow.owner == "other"


async def test_no_living_worker_is_taken_for_dead_and_its_lease_is_as_long_as_it_asked(own_server, prefix):
    async with RedisExecutionLog(own_server.url, prefix=prefix) as log:
        await register(log, "living", lease_seconds=60)
        set_back(own_server, prefix)

        assert await log.reap() == []

        (worker,) = await log.workers()
        assert 55 < worker.lease_expires_at - log.now() <= 60.5
        renewed = await log.renew("living", lease_seconds=90)
        assert 85 < renewed - log.now() <= 90.5
        assert await log.reap() == []


async def test_a_worker_without_a_known_lease_lives_until_the_end_that_stands_there(own_server, prefix):
    """An older program may have written it."""
    async with RedisExecutionLog(own_server.url, prefix=prefix) as log:
        await register(log, "living", lease_seconds=60)
        set_back(own_server, prefix)
        with own_server.client() as client:
            (key,) = client.scan_iter(f"*{prefix}*:worker:living")
            client.hdel(key, "lease_seconds")

        assert await log.reap() == []

        (worker,) = await log.workers()
        assert worker.lease_expires_at - log.now() > 3_600
