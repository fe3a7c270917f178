"""What one script cannot do on a cluster, and who finishes it when a process dies in between."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from ergon import list_namespaces
from ergon.core.commit import Commit, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LogDamaged, LogRefused
from ergon.storage.redis import RedisExecutionLog
from ergon.storage.redis.partitions import base_of
from tests.servers.redis import cluster, new_prefix
from tests.storage.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    new_flow,
    register,
    settle,
    status_of,
)

PROGRAM = """
import asyncio
from ergon.core.commit import Commit, Lease
from ergon.storage.redis import RedisExecutionLog
from tests.storage.kit import commit, new_flow, register

async def main():
    async with RedisExecutionLog({url!r}, prefix={prefix!r}) as log:
        {act}

asyncio.run(main())
"""


@pytest.fixture
async def log(prefix: str) -> AsyncIterator[RedisExecutionLog]:
    async with RedisExecutionLog(cluster().url, prefix=prefix) as opened:
        yield opened


async def dies(prefix: str, act: str, failpoint: str) -> None:
    """Do something in a process that is killed at a write."""
    code = PROGRAM.format(url=cluster().url, prefix=prefix, act=act)
    environment = os.environ | {"ERGON_FAILPOINT": failpoint}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env=environment, stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()


async def test_children_whose_parents_process_died_after_its_commit_are_created_by_the_next_reaper(
    log, prefix
):
    await register(log)
    lease = await claimed_flow(log, "p")
    ids = [f"c{n}" for n in range(20)]

    act = (
        f"await commit(log, Commit('p', Lease('w1', {lease.epoch}), children=tuple("
        f"new_flow(id, parent_id='p', parent_op=id) for id in {ids!r})))"
    )
    await dies(prefix, act, "commit:1:post")
    there = [id for id in ids if await log.find(id) is not None]
    assert len(there) < len(ids), "some are in other parts, and nobody has carried the word"
    await log.reap()

    assert [await status_of(log, id) for id in ids] == [TaskStatus.PENDING] * 20
    assert sorted(one.flow.id for one in await claim(log)) == sorted(ids)
    assert await log.inbox("p") == [], "each is the child that was asked for"


async def test_a_parent_hears_once_of_an_end_whose_process_died_before_it_told(log, prefix):
    await register(log)
    parent = await claimed_flow(log, "p")
    children = tuple(new_flow(f"c{n}", parent_id="p", parent_op=f"0:{n}") for n in range(20))
    await commit(log, Commit("p", parent, children=children, settled=Settled(TaskStatus.SUSPENDED)))
    leases = {one.id: (await claim_one(log, one.id)).lease for one in children}

    partitions = log._session.partitions
    id, lease = next(pair for pair in leases.items() if partitions.of(pair[0]) != partitions.of("p"))
    act = (
        "from ergon.core.commit import Settled; from ergon.core.status import TaskStatus; "
        f"await commit(log, Commit({id!r}, Lease('w1', {lease.epoch}), settled=Settled(TaskStatus.COMPLETED, '1')))"
    )
    await dies(prefix, act, "commit:1:post")
    assert await status_of(log, id) is TaskStatus.COMPLETED
    assert await log.inbox("p") == []
    await asyncio.gather(*(log.reap() for _ in range(3)))

    (told,) = await log.inbox("p")
    assert json.loads(told.payload)["flow_id"] == id
    assert await status_of(log, "p") is TaskStatus.PENDING


async def test_a_worker_that_was_declared_dead_halfway_loses_all_its_flows_to_the_next_reaper(log, prefix):
    await register(log, "old", lease_seconds=0.05)
    await register(log, "new")
    leases = {f"f{n}": await claimed_flow(log, f"f{n}", "old") for n in range(20)}

    act = "await asyncio.sleep(0.1); await log.reap()"
    await dies(prefix, act, "reap:1:post")
    states = {id: await status_of(log, id) for id in leases}
    assert TaskStatus.RUNNING in states.values(), "only its home knows"
    assert {one.id: one.state for one in await log.workers()} == {"old": "dead", "new": "alive"}
    await log.reap()

    assert len(await claim(log, "new")) == 20
    for id, lease in leases.items():
        with pytest.raises(Exception, match="held it at epoch"):
            await commit(log, Commit(id, lease, (event(1),)))


async def test_the_parts_of_a_log_spread_over_the_masters(log, prefix):
    for n in range(100):
        await log.create(new_flow(f"f{n}"))

    counts = []
    for node in cluster().nodes:
        with node.client() as client:
            counts.append(sum(1 for _ in client.scan_iter(f"{{{prefix}:*flow:*", count=1000)))
    assert sum(counts) == 100
    assert min(counts) > 0


async def test_a_part_that_was_lost_is_noticed(log, prefix):
    await log.close()
    for node in cluster().nodes:
        with node.client() as client:
            for key in client.scan_iter(base_of(prefix, 7) + "meta"):
                client.delete(key)

    with pytest.raises(LogDamaged, match="has lost part 7 of 16"):
        await log.connect()


async def test_a_database_other_than_0_is_refused_on_a_cluster():
    with pytest.raises(LogRefused, match="only database 0"):
        await RedisExecutionLog(cluster().url.replace("/0", "/1")).connect()


async def test_while_a_slot_moves_its_part_waits_and_nothing_is_torn(log, prefix):
    """A script names one key and touches others: it must not meet half a part."""
    await register(log)
    lease = await claimed_flow(log, "p")
    base = log._session.partitions.base("p")
    nodes = [node.client() for node in cluster().nodes]
    slot = nodes[0].cluster("KEYSLOT", base)
    ids = [client.execute_command("CLUSTER", "MYID") for client in nodes]
    ids = [id if isinstance(id, str) else id.decode() for id in ids]
    holders = [any(client.scan_iter(base + "meta")) for client in nodes]
    source = holders.index(True)
    target = (source + 1) % 3

    nodes[target].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    nodes[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    keys = nodes[source].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 10_000)
    for key in keys[: len(keys) // 2]:
        nodes[source].execute_command("MIGRATE", "127.0.0.1", cluster().nodes[target].port, key, 0, 5000)
    writing = asyncio.create_task(
        commit(log, Commit("p", lease, (event(1),), settled=Settled(TaskStatus.COMPLETED, "1")))
    )
    await asyncio.sleep(0.3)
    assert not writing.done()
    for key in keys[len(keys) // 2 :]:
        nodes[source].execute_command("MIGRATE", "127.0.0.1", cluster().nodes[target].port, key, 0, 5000)
    for client in (nodes[target], nodes[source]):
        client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    await writing
    assert await status_of(log, "p") is TaskStatus.COMPLETED
    assert await log.history("p") == [event(1)]
    for client in nodes:
        client.close()


async def test_a_family_over_many_parts_is_deleted_with_its_root(log):
    await register(log)
    lease = await claimed_flow(log, "p")
    children = tuple(new_flow(f"c{n}", parent_id="p", parent_op=f"0:{n}") for n in range(10))
    detached = new_flow("d", parent_id="p", parent_op="0:d", close_with_parent=False)
    await commit(log, Commit("p", lease, children=(*children, detached)))
    await settle(log, "p", lease)

    assert await log.delete("p") is True

    assert [await log.find(one.id) for one in children] == [None] * 10
    assert (await log.find("d")).parent_id is None


async def test_the_namespaces_of_a_cluster_are_found_on_whichever_master_they_are():
    prefix = new_prefix()
    names = [f"tenant-{number}" for number in range(6)]
    for name in names:
        async with RedisExecutionLog(cluster().url, prefix=prefix, namespace=name):
            pass

    assert await list_namespaces(f"{cluster().url}?prefix={prefix}") == names
