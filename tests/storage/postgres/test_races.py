"""Two at once, each on a connection of its own: whichever comes first, both tell the same story."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import asyncpg
import pytest

from ergon import PostgresExecutionLog
from ergon.core.commit import Commit, Settled
from ergon.core.status import TaskStatus
from ergon.errors import IllegalMove, LeaseLost
from ergon.testing.conformance.kit import (
    cancel,
    child,
    claim,
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    new_flow,
    parent_of,
    register,
    settle,
    signal,
    status_of,
)

ROUNDS = 40
Logs = tuple[PostgresExecutionLog, PostgresExecutionLog]


@pytest.fixture
async def logs(url: str) -> AsyncIterator[Logs]:
    async with (
        PostgresExecutionLog(url, require="D1") as one,
        PostgresExecutionLog(url, require="D1") as other,
    ):
        await register(one)
        await register(one, "w2")
        yield one, other


async def test_a_flow_that_goes_to_sleep_never_sleeps_on_a_message(logs: Logs) -> None:
    one, other = logs
    for n in range(ROUNDS):
        lease = await claimed_flow(one, f"f{n}")

        await asyncio.gather(settle(one, f"f{n}", lease, TaskStatus.SUSPENDED), other.send(signal(f"f{n}")))

        assert await status_of(one, f"f{n}") is TaskStatus.PENDING


async def test_a_commit_lands_before_its_flow_is_taken_away_or_not_at_all(logs: Logs) -> None:
    """Whoever claims the flow next has read the history as it stays."""
    one, other = logs

    async def take_away(flow_id: str) -> list[int]:
        await other.move(flow_id, TaskStatus.PAUSED)
        await other.move(flow_id, TaskStatus.PENDING)
        return [found.seq for found in (await claim_one(other, flow_id, "w2")).events]

    outcomes = set()
    for n in range(ROUNDS):
        lease = await claimed_flow(one, f"f{n}")
        (error,), seen = await asyncio.gather(
            commit_all(one, Commit(f"f{n}", lease, (event(1),))), take_away(f"f{n}")
        )

        assert error is None or isinstance(error, LeaseLost)
        assert seen == ([1] if error is None else [])
        assert [found.seq for found in await one.history(f"f{n}")] == seen
        outcomes.add(error is None)
    assert outcomes, "both may happen; which does is chance"


async def test_a_child_that_ends_while_its_parent_ends_leaves_both_ended(logs: Logs) -> None:
    """Each locks the other: in one order, so that neither waits for long."""
    one, other = logs
    for n in range(ROUNDS // 2):
        parent = await claimed_flow(one, f"p{n}")
        kid = new_flow(f"c{n}", parent_id=f"p{n}", parent_op="0:1")
        await commit(one, Commit(f"p{n}", parent, children=(kid,)))
        lease = (await claim_one(other, f"c{n}", "w2")).lease
        async with asyncio.timeout(20):
            await asyncio.gather(settle(one, f"p{n}", parent), settle(other, f"c{n}", lease))

        assert await status_of(one, f"p{n}") is TaskStatus.COMPLETED
        assert await status_of(one, f"c{n}") is TaskStatus.COMPLETED


async def test_batches_that_touch_the_same_flows_in_any_order_all_land(logs: Logs) -> None:
    one, other = logs
    flows = [f"f{n}" for n in range(20)]
    for flow_id in flows:
        await one.create(new_flow(flow_id))
    rng = random.Random(7)

    async def send_to_all(log: PostgresExecutionLog) -> None:
        for _ in range(10):
            await asyncio.gather(*(log.send(signal(flow_id)) for flow_id in rng.sample(flows, len(flows))))

    async with asyncio.timeout(40):
        await asyncio.gather(send_to_all(one), send_to_all(other))

    for flow_id in flows:
        ids = [message.id for message in await one.inbox(flow_id)]
        assert len(ids) == 20
        assert ids == sorted(ids)


async def test_two_claims_share_what_is_ready_and_take_nothing_twice(logs: Logs) -> None:
    one, other = logs
    await asyncio.gather(*(one.create(new_flow(f"f{n}")) for n in range(200)))
    taken: list[str] = []

    async def take(log: PostgresExecutionLog, worker: str) -> None:
        misses = 0
        while misses < 3:
            found = await claim(log, worker, limit=7)
            misses = 0 if found else misses + 1
            taken.extend(one.flow.id for one in found)

    await asyncio.gather(take(one, "w1"), take(other, "w2"), take(one, "w2"))

    assert sorted(taken) == sorted(f"f{n}" for n in range(200))


async def test_of_a_claim_and_a_reaper_one_comes_first(logs: Logs) -> None:
    """A dead worker owns nothing, whatever it was just claiming."""
    one, other = logs
    for n in range(ROUNDS // 2):
        worker = await register(one, f"mortal-{n}")
        await one.renew(worker, lease_seconds=0.001)
        await one.create(new_flow(f"f{n}"))
        await asyncio.gather(claim(one, worker), other.reap(), return_exceptions=True)
        await other.reap()

        record = await one.find(f"f{n}")
        assert record is not None
        assert (record.status, record.owner) == (TaskStatus.PENDING, None)
        await claim_one(one, f"f{n}")


async def test_a_kill_and_a_cancel_and_an_end_at_once_leave_one_end(logs: Logs) -> None:
    one, other = logs
    for n in range(ROUNDS // 2):
        lease = await parent_of(one, child(f"c{n}", parent_id=f"p{n}"), id=f"p{n}")
        answers = await asyncio.gather(
            settle(one, f"p{n}", lease),
            other.move(f"p{n}", TaskStatus.CANCELLED),
            other.send(cancel(f"p{n}")),
            other.move(f"c{n}", TaskStatus.CANCELLED),
            return_exceptions=True,
        )

        assert {type(answer) for answer in answers if isinstance(answer, BaseException)} <= {
            LeaseLost,
            IllegalMove,
        }
        assert (await status_of(one, f"p{n}")).is_terminal
        assert await status_of(one, f"c{n}") is TaskStatus.CANCELLED


async def test_who_freezes_in_the_middle_of_a_transaction_holds_nobody_up_for_long(
    logs: Logs, url: str
) -> None:
    """A process that is stopped there has a session with our settings: its server ends it."""
    one, _ = logs
    lease = await claimed_flow(one)
    seen = await one._session.read(_settings)
    frozen = await asyncpg.connect(url, server_settings={"idle_in_transaction_session_timeout": "300"})
    await frozen.execute("BEGIN; SELECT 1 FROM ergon.flows FOR UPDATE")

    async with asyncio.timeout(20):
        await commit(one, Commit("f1", lease, (event(1),), settled=Settled(TaskStatus.COMPLETED)))

    assert seen == "5s"
    frozen.terminate()


async def _settings(connection: object) -> str:
    row = await connection.fetchrow("SHOW idle_in_transaction_session_timeout")  # type: ignore[attr-defined]
    return str(row[0])
