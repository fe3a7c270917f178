"""On a cluster whose masters have replicas: what was acknowledged outlives a master."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import pytest

from ergon.core.commit import Commit, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LogBusy
from ergon.storage.redis import RedisExecutionLog
from tests.servers.redis import ALWAYS, RedisCluster, RedisServer, cluster, running
from tests.storage.kit import claimed_flow, commit, event, new_flow, register, status_of, until


@pytest.fixture(scope="module")
def with_replicas() -> Iterator[RedisCluster]:
    own = RedisCluster(replicas=True)
    yield own
    own.stop()


def is_master(server: RedisServer) -> bool:
    with server.client() as client:
        return bool(client.info("replication")["role"] == "master")


async def test_nothing_acknowledged_is_lost_when_a_master_dies_and_its_replica_takes_its_place(
    with_replicas, prefix
):
    async with RedisExecutionLog(with_replicas.url, prefix=prefix, replicas=1, require="D4") as log:
        await register(log, lease_seconds=60)
        ids = [f"f{n}" for n in range(12)]
        leases = {id: await claimed_flow(log, id) for id in ids}
        acknowledged = dict.fromkeys(ids, 0)

        async def write(id: str) -> None:
            for n in range(1, 61):
                await commit(log, Commit(id, leases[id], (event(n),)))
                acknowledged[id] = n

        writing = [asyncio.create_task(write(id)) for id in ids]
        await until(lambda: min(acknowledged.values()) >= 10)
        with_replicas.nodes[1].kill()
        await until(lambda: is_master(with_replicas.replicas[1]))
        with_replicas.nodes[1].start()  # as a replica now: writes have waited for one
        await asyncio.gather(*writing)

        for id in ids:
            assert [one.seq for one in await log.history(id)] == list(range(1, 61))


async def test_a_child_in_a_part_of_another_master_is_there_after_either_of_them_died(with_replicas, prefix):
    """What crosses parts is crossed out only once a replica has it."""
    async with RedisExecutionLog(with_replicas.url, prefix=prefix, replicas=1) as log:
        await register(log, lease_seconds=60)
        parent = await claimed_flow(log, "p")
        children = tuple(new_flow(f"c{n}", parent_id="p", parent_op=f"0:{n}") for n in range(20))
        await commit(log, Commit("p", parent, children=children, settled=Settled(TaskStatus.SUSPENDED)))

        with_replicas.nodes[2].kill()

        assert [await status_of(log, one.id) for one in children] == [TaskStatus.PENDING] * 20


async def test_a_write_to_a_master_that_has_become_a_replica_waits_until_a_master_takes_it(prefix):
    with running(*ALWAYS) as one, running(*ALWAYS, "--replicaof", f"127.0.0.1 {one.port}") as other:
        async with RedisExecutionLog(one.url, prefix=prefix, replicas=1) as log:
            await register(log)
            lease = await claimed_flow(log, "f1")
            follow(other, None)
            follow(one, other)
            writing = asyncio.create_task(commit(log, Commit("f1", lease, (event(1),))))
            await until(lambda: refused_writes(one) > 2)
            assert not writing.done()
            follow(one, None)
            follow(other, one)
            await writing

            assert [one.seq for one in await log.history("f1")] == [1]


async def test_a_write_whose_master_becomes_a_replica_while_it_waits_for_one_is_sent_again(prefix):
    """Its new master never had the write, so the old one forgets it."""
    with running(*ALWAYS) as one, running(*ALWAYS, "--replicaof", f"127.0.0.1 {one.port}") as other:
        async with RedisExecutionLog(one.url, prefix=prefix, replicas=1) as log:
            await register(log)
            lease = await claimed_flow(log, "f1")
            with frozen(other):
                writing = asyncio.create_task(commit(log, Commit("f1", lease, (event(1),))))
                await until(lambda: waiting_clients(one))
                follow(one, other)
            follow(other, None)
            await until(lambda: has_synced(one))
            assert not writing.done()
            follow(one, None)
            follow(other, one)
            await writing

            assert [one.seq for one in await log.history("f1")] == [1]


@contextlib.contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    """A server that neither answers nor ends."""
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


def waiting_clients(server: RedisServer) -> int:
    """How many wait for a replica."""
    with server.client() as client:
        return int(client.info("clients")["blocked_clients"])


def has_synced(server: RedisServer) -> bool:
    """Whether a replica has what its master has."""
    with server.client() as client:
        return bool(client.info("replication").get("master_link_status") == "up")


def follow(server: RedisServer, master: RedisServer | None) -> None:
    """Let a server be a replica of another, which has all it has, or a master."""
    with server.client() as client:
        if master is None:
            client.replicaof("NO", "ONE")
        else:
            client.replicaof("127.0.0.1", str(master.port))


def refused_writes(server: RedisServer) -> int:
    """How often the server refused to confirm a write."""
    with server.client() as client:
        calls = client.info("commandstats").get("cmdstat_wait", {})
        return sum(int(calls.get(how, 0)) for how in ("rejected_calls", "failed_calls"))


async def test_a_master_without_a_replica_acknowledges_nothing_where_one_is_waited_for(prefix):
    async with RedisExecutionLog(cluster().url, prefix=prefix, replicas=1, busy_timeout_seconds=0.1) as log:
        with pytest.raises(LogBusy, match="0 of 1 replicas confirmed"):
            await log.create(new_flow("f1"))
