"""What a server's settings survive, and that it is so."""

from __future__ import annotations

import asyncio

import pytest

from ergon import open_log
from ergon.core.commit import Commit, FlowFilter
from ergon.errors import LogBusy, LogRefused
from ergon.storage.redis import RedisExecutionLog
from tests.servers.redis import ALWAYS
from tests.storage.kit import claimed_flow, commit, event, new_flow, register, signal


@pytest.mark.parametrize(
    "options, level",
    [(ALWAYS, "D3"), (("--appendonly", "yes", "--appendfsync", "everysec"), "D1")],
    ids=["always", "everysec"],
)
async def test_the_class_follows_from_how_often_the_server_flushes(server_with, options, level):
    server = server_with(*options)

    async with RedisExecutionLog(server.url) as log:
        assert (await log.durability()).level == level
        with server.client() as client:
            client.config_set("appendfsync", "always" if level == "D1" else "everysec")
        assert (await log.durability()).level != level, "it is read from the live server"


async def test_below_the_class_required_nothing_is_opened(server_with):
    server = server_with("--appendonly", "yes", "--appendfsync", "everysec")

    with pytest.raises(
        LogRefused, match=r"D3 is required: appendfsync is everysec: .* set appendfsync always"
    ):
        await RedisExecutionLog(server.url, require="D3").connect()
    async with RedisExecutionLog(server.url, require="D1") as log:
        assert await log.find("f1") is None


async def test_where_config_is_forbidden_the_worst_is_assumed(server_with):
    server = server_with(*ALWAYS, "--rename-command", "CONFIG", "")

    async with RedisExecutionLog(server.url) as log:
        durability = await log.durability()

    assert durability.level == "D1"
    assert "CONFIG is forbidden" in durability.limits[0]


async def test_what_was_acknowledged_is_there_after_the_server_was_killed(own_server):
    async with RedisExecutionLog(own_server.url, require="D3") as log:
        await register(log)
        lease = await claimed_flow(log)
        acknowledged = 0

        async def write() -> None:
            nonlocal acknowledged
            for n in range(1, 301):
                await commit(log, Commit("f1", lease, (event(n),)))
                acknowledged = n
                await log.send(signal("f1", payload=str(n)))

        writing = asyncio.create_task(write())
        for _ in range(3):
            before = acknowledged
            while acknowledged < before + 20:
                await asyncio.sleep(0)
            own_server.restart()
        await writing

        assert [one.seq for one in await log.history("f1")] == list(range(1, 301))
        assert [message.payload for message in await log.inbox("f1")] == [str(n) for n in range(1, 301)], (
            "without keys: none lost, none doubled, in order"
        )


async def test_a_write_waits_for_the_replicas_that_were_asked_for(own_server, server_with):
    replica = server_with(*ALWAYS, "--replicaof", "127.0.0.1", str(own_server.port))
    with own_server.client() as client:
        while not client.wait(1, 100):
            client.set("anything", "1")

    async with RedisExecutionLog(own_server.url, replicas=1, require="D4") as log:
        await log.create(new_flow("f1"))
        with replica.client() as client:
            assert client.hget("{ergon:0}:flow:f1", "name") == "order"
        assert await log.count(FlowFilter()) == {"pending": 1}


async def test_a_write_that_no_replica_confirms_is_not_acknowledged(own_server):
    async with RedisExecutionLog(own_server.url, replicas=1, busy_timeout_seconds=0.1) as log:
        with pytest.raises(LogBusy, match="0 of 1 replicas confirmed"):
            await log.create(new_flow("f1"))


async def test_a_write_that_waits_for_the_disk_outlives_the_server_whatever_it_flushes_by_itself(server_with):
    server = server_with("--appendonly", "yes", "--appendfsync", "everysec")

    async with open_log(f"{server.url}?flushed=true", require="D3") as log:
        await log.create(new_flow("f1"))
        server.restart()
        assert await log.find("f1") is not None


async def test_replicas_confirm_that_it_is_on_disk_where_that_is_asked_for(own_server, server_with):
    replica = server_with(
        "--appendonly", "yes", "--appendfsync", "everysec", "--replicaof", "127.0.0.1", str(own_server.port)
    )
    with own_server.client() as client:
        while not client.wait(1, 100):
            client.set("anything", "1")

    async with RedisExecutionLog(own_server.url, replicas=1, flushed=True, require="D4") as log:
        await log.create(new_flow("f1"))
        replica.restart()
        with replica.client() as client:
            assert client.hget("{ergon:0}:flow:f1", "name") == "order"
