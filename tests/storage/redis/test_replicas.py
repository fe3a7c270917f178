"""On a cluster whose masters have replicas: what was acknowledged outlives a master."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from ergon.core.commit import Commit, Lease, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LogBusy
from ergon.storage.redis import RedisExecutionLog
from tests.servers.redis import RedisCluster, RedisServer, cluster
from tests.storage.kit import claimed_flow, commit, event, new_flow, register, status_of, until


@pytest.fixture(scope="module")
def with_replicas() -> Iterator[RedisCluster]:
    own = RedisCluster(replicas=True)
    yield own
    own.stop()


TWELVE = [f"f{n}" for n in range(12)]
"""Flows in parts of all masters."""


def is_master(server: RedisServer) -> bool:
    with server.client() as client:
        return bool(client.info("replication")["role"] == "master")


def write_on(
    log: RedisExecutionLog, leases: dict[str, Lease], acknowledged: dict[str, int]
) -> list[asyncio.Task[None]]:
    """Write sixty events of each flow, one after the other; `acknowledged` tells how far each has come."""

    async def write(id: str) -> None:
        for n in range(1, 61):
            await commit(log, Commit(id, leases[id], (event(n),)))
            acknowledged[id] = n

    return [asyncio.create_task(write(id)) for id in leases]


async def test_nothing_acknowledged_is_lost_when_a_master_dies_and_its_replica_takes_its_place(
    with_replicas, prefix
):
    async with RedisExecutionLog(with_replicas.url, prefix=prefix, replicas=1, require="D4") as log:
        await register(log, lease_seconds=60)
        leases = {id: await claimed_flow(log, id) for id in TWELVE}
        acknowledged = dict.fromkeys(TWELVE, 0)

        writing = write_on(log, leases, acknowledged)
        await until(lambda: min(acknowledged.values()) >= 10)
        with_replicas.nodes[1].kill()
        await until(lambda: is_master(with_replicas.replicas[1]))
        with_replicas.nodes[1].start()  # as a replica now: writes have waited for one
        await asyncio.gather(*writing)

        for id in TWELVE:
            assert [one.seq for one in await log.history(id)] == list(range(1, 61))


async def test_writes_go_on_when_replicas_take_over_from_masters_that_still_run(with_replicas, prefix):
    """What the old ones are to confirm at that moment, they say that they cannot."""
    async with RedisExecutionLog(with_replicas.url, prefix=prefix, replicas=1) as log:
        await register(log, lease_seconds=60)
        leases = {id: await claimed_flow(log, id) for id in TWELVE}
        acknowledged = dict.fromkeys(TWELVE, 0)

        writing = write_on(log, leases, acknowledged)
        for turn in (1, 2):
            await until(lambda least=20 * turn: min(acknowledged.values()) >= least)  # type: ignore[misc]
            await change_places(with_replicas, 0)
        await asyncio.gather(*writing)

        for id in TWELVE:
            assert [one.seq for one in await log.history(id)] == list(range(1, 61))


async def test_all_masters_may_change_places_with_their_replicas_while_a_log_is_idle(
    with_replicas, prefix, caplog
):
    async with RedisExecutionLog(with_replicas.url, prefix=prefix, busy_timeout_seconds=5.0) as log:
        await register(log, lease_seconds=60)
        leases = {id: await claimed_flow(log, id) for id in TWELVE}
        for number in range(len(with_replicas.nodes)):
            await change_places(with_replicas, number)

        for id, lease in leases.items():
            await commit(log, Commit(id, lease, (event(1),)))
            assert [one.seq for one in await log.history(id)] == [1]
    assert "replica" not in caplog.text, "it looks elsewhere, and has nothing to complain of"


async def change_places(servers: RedisCluster, number: int) -> None:
    """A replica takes over from its master, whichever of the two is which by now; both run on."""
    pair = servers.nodes[number], servers.replicas[number]
    master, replica = pair if is_master(pair[0]) else (pair[1], pair[0])
    with replica.client() as client:
        client.execute_command("CLUSTER", "FAILOVER", "TAKEOVER")
    await until(lambda: not is_master(master))


async def test_a_child_in_a_part_of_another_master_is_there_after_either_of_them_died(with_replicas, prefix):
    """What crosses parts is crossed out only once a replica has it."""
    async with RedisExecutionLog(with_replicas.url, prefix=prefix, replicas=1) as log:
        await register(log, lease_seconds=60)
        parent = await claimed_flow(log, "p")
        children = tuple(new_flow(f"c{n}", parent_id="p", parent_op=f"0:{n}") for n in range(20))
        await commit(log, Commit("p", parent, children=children, settled=Settled(TaskStatus.SUSPENDED)))

        with_replicas.nodes[2].kill()

        assert [await status_of(log, one.id) for one in children] == [TaskStatus.PENDING] * 20


async def test_a_master_without_a_replica_acknowledges_nothing_where_one_is_waited_for(prefix):
    async with RedisExecutionLog(cluster().url, prefix=prefix, replicas=1, busy_timeout_seconds=0.1) as log:
        with pytest.raises(LogBusy, match="0 of 1 replicas confirmed"):
            await log.create(new_flow("f1"))
