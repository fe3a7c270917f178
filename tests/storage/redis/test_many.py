"""Numbers beyond what one command or one call in Lua takes."""

from __future__ import annotations

import asyncio

from ergon.core.commit import Commit, FlowFilter
from ergon.core.status import TaskStatus
from ergon.storage.redis import RedisExecutionLog
from ergon.storage.redis.connection import CONNECTIONS_MAX
from tests.storage.kit import claim_one, claimed_flow, commit, event, new_flow, register, settle, signal


async def test_ten_thousand_unread_messages_all_come_with_the_claim(log):
    await register(log)
    lease = await claimed_flow(log)
    await asyncio.gather(*(log.send(signal("f1", payload=str(n))) for n in range(10_000)))
    await settle(log, "f1", lease, TaskStatus.PENDING)

    claimed = await claim_one(log, "f1")

    assert [message.payload for message in claimed.inbox] == [str(n) for n in range(10_000)]
    assert len(await log.inbox("f1")) == 10_000
    assert claimed.inbox_seen >= claimed.inbox[-1].id


async def test_ten_thousand_events_land_in_one_commit_and_come_with_the_claim(log):
    await register(log)
    lease = await claimed_flow(log)
    events = tuple(event(n) for n in range(1, 10_001))
    await commit(log, Commit("f1", lease, events))
    await settle(log, "f1", lease, TaskStatus.PENDING)

    assert (await claim_one(log, "f1")).events == list(events)


async def test_however_many_read_at_once_they_leave_connections_to_those_who_write(own_server):
    """A renewal that finds no connection is one that comes too late."""
    async with RedisExecutionLog(own_server.url) as log:
        await log.create(new_flow("f1"))

        found = await asyncio.gather(*(log.find("f1") for _ in range(500)))

        assert all(flow is not None for flow in found)
        with own_server.client() as client:
            assert int(client.info("clients")["connected_clients"]) < CONNECTIONS_MAX * 3 / 4


async def test_counting_flows_reads_none_of_their_values(own_server):
    """However large these are: whoever counts a million flows would else have all of them sent."""
    async with RedisExecutionLog(own_server.url) as log:
        large = '"' + "x" * 100_000 + '"'
        await asyncio.gather(*(log.create(new_flow(f"f{n}", input=large)) for n in range(20)))
        with own_server.client() as client:
            before = int(client.info("stats")["total_net_output_bytes"])

            assert await log.count(FlowFilter(queue="default")) == {TaskStatus.PENDING: 20}
            assert await log.count(FlowFilter(queue="other")) == {}

            assert int(client.info("stats")["total_net_output_bytes"]) - before < 200_000
