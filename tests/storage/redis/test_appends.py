"""The way of usual steps into the log: one call for those of many flows, and each succeeds or fails by itself."""

from __future__ import annotations

import redis

from ergon import RedisExecutionLog
from ergon.core.commit import Commit, Lease
from ergon.core.status import TaskStatus
from ergon.errors import IllegalMove, LeaseLost, LogDamaged
from ergon.storage.redis.journal import refusal
from ergon.testing.conformance.kit import claimed_flow, commit, commit_all, event, register
from tests.servers.redis import RedisServer, server_url


async def test_steps_of_many_flows_share_one_call(own_server: RedisServer) -> None:
    async with RedisExecutionLog(own_server.url) as log:
        await register(log)
        flows = [f"f{n}" for n in range(100)]
        leases = [await claimed_flow(log, flow) for flow in flows]
        with own_server.client() as client:
            client.config_resetstat()

            told = await commit_all(
                log, *(Commit(flow, lease, (event(1),)) for flow, lease in zip(flows, leases, strict=True))
            )

            calls = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert told == [None] * 100
        assert calls <= 2, "what came while the first was on its way may take another"
        assert [await log.history(flow) for flow in flows] == [[event(1)]] * 100


async def test_of_steps_that_share_a_call_each_succeeds_or_fails_by_itself(log, prefix) -> None:
    """Damage, a lost lease, a gap, an event that is there: none keeps the others from being written."""
    await register(log)
    leases = {
        name: await claimed_flow(log, name)
        for name in ("a", "damaged", "b", "lost", "gap", "c", "again", "d")
    }
    await log.move("lost", TaskStatus.PAUSED)
    await commit(log, Commit("again", leases["again"], (event(1),)))
    with redis.Redis.from_url(server_url()) as client:
        client.set(f"{{{prefix}:0}}:events:damaged", "x")
    commits = {name: Commit(name, lease, (event(1),)) for name, lease in leases.items()}
    commits["gap"] = Commit("gap", leases["gap"], (event(2),))
    commits["again"] = Commit("again", leases["again"], (event(1, "2"),))

    told = dict(zip(commits, await commit_all(log, *commits.values()), strict=True))

    kinds = {name: type(error).__name__ for name, error in told.items() if error is not None}
    assert kinds == {
        "damaged": LogDamaged.__name__,
        "lost": LeaseLost.__name__,
        "gap": IllegalMove.__name__,
        "again": IllegalMove.__name__,
    }
    for name in "abcd":
        assert await log.history(name) == [event(1)]
    assert await log.history("again") == [event(1)]
    assert await log.history("gap") == []


async def test_commits_of_one_flow_land_in_their_order(log) -> None:
    await register(log)
    one, other = await claimed_flow(log, "f1"), await claimed_flow(log, "f2")

    told = await commit_all(
        log,
        Commit("f1", one, (event(1),)),
        Commit("f1", one, (event(2), event(3))),
        Commit("f2", other, (event(1),)),
        Commit("f1", one, (event(4),)),
    )

    assert told == [None] * 4
    assert await log.history("f1") == [event(n) for n in range(1, 5)]


def test_a_commit_to_a_flow_whose_epoch_is_damaged_is_refused_like_any_other() -> None:
    late = Commit("f1", Lease("w1", 1), (event(1),))

    for epoch in (b"", b"what"):
        refused = refusal(late, [b"lost", b"running", b"w1", epoch])
        assert isinstance(refused, LeaseLost)
        assert not refused.status
