"""Workers: their leases, what they say of themselves, and what a thread may ask for them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ergon.core.commit import Commit
from ergon.errors import LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim_one,
    claimed_flow,
    commit,
    event,
    is_near,
    kill_worker,
    new_flow,
    record,
    register,
    settle,
    worker_record,
)


async def test_registering_returns_the_worker_as_the_log_keeps_it(log: ExecutionLog) -> None:
    declared = worker_record(
        "w1", flows=("a", "b"), queues=("q",), versions=("v1", ">=2"), tags=("gpu", "big")
    )

    kept = await log.register(declared, lease_seconds=30)

    assert is_near(kept.started_at, log.now())
    assert abs(kept.lease_expires_at - kept.started_at - 30) < 1e-3
    assert kept.state == "alive"
    assert await log.workers() == [kept]
    for field in (
        "id",
        "name",
        "host",
        "pid",
        "process_start",
        "boot_id",
        "flows",
        "queues",
        "versions",
        "tags",
    ):
        assert getattr(kept, field) == getattr(declared, field)


async def test_a_worker_of_any_version_differs_from_one_of_no_version(log: ExecutionLog) -> None:
    await register(log, "any", versions=None)
    await register(log, "none", versions=())

    assert {worker.id: worker.versions for worker in await log.workers()} == {"any": None, "none": ()}


async def test_workers_are_told_newest_first(log: ExecutionLog) -> None:
    for n in range(12):
        await register(log, f"w{n}")

    assert [worker.id for worker in await log.workers()] == [f"w{n}" for n in reversed(range(12))]


async def test_registering_a_living_worker_again_extends_its_lease_and_says_anew_what_it_runs(
    log: ExecutionLog,
) -> None:
    first = await log.register(worker_record(flows=("a",)), lease_seconds=30)

    second = await log.register(worker_record(flows=("b",)), lease_seconds=3_000)

    assert (second.started_at, second.flows) == (first.started_at, ("b",))
    assert second.lease_expires_at > first.lease_expires_at + 2_000
    assert len(await log.workers()) == 1


async def test_renewing_extends_the_lease_and_returns_its_end(log: ExecutionLog) -> None:
    await register(log, lease_seconds=30)

    expires_at = await log.renew("w1", lease_seconds=300)

    assert is_near(expires_at, log.now() + 300)
    assert [worker.lease_expires_at for worker in await log.workers()] == [
        pytest.approx(expires_at, abs=1e-3)
    ]


async def test_a_lease_may_also_be_shortened(log: ExecutionLog) -> None:
    await register(log, lease_seconds=3_000)

    assert is_near(await log.renew("w1", lease_seconds=30), log.now() + 30)


async def test_a_worker_says_what_its_flows_do(log: ExecutionLog) -> None:
    await register(log)
    for id in ("f1", "f2"):
        await claimed_flow(log, id)

    await log.renew("w1", lease_seconds=30, doing={"f1": "in step charge", "absent": "x"})

    assert (await record(log, "f1")).reason == "in step charge"
    assert (await record(log, "f2")).reason == ""


async def test_what_a_flow_does_is_forgotten_when_it_is_claimed_again(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    await claimed_flow(log)
    await log.renew("w1", lease_seconds=30, doing={"f1": "in step charge"})
    await kill_worker(log, "w1")

    assert (await claim_one(log, "f1", "w2")).flow.reason == ""


async def test_a_renewed_worker_is_not_declared_dead(log: ExecutionLog) -> None:
    await register(log, lease_seconds=0.001)
    await log.renew("w1", lease_seconds=3_000)

    assert await log.reap() == []
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))


async def test_a_lease_concerns_no_other_worker(log: ExecutionLog) -> None:
    for worker in ("w1", "w10", "W1"):
        await register(log, worker)
    lease = await claimed_flow(log, "f1", "w10")

    await kill_worker(log, "w1")

    assert {worker.id: worker.state for worker in await log.workers()} == {
        "w1": "dead",
        "w10": "alive",
        "W1": "alive",
    }
    await commit(log, Commit("f1", lease, (event(1),)))


async def test_a_draining_worker_is_alive_and_says_so(log: ExecutionLog) -> None:
    await register(log)
    lease = await claimed_flow(log)

    await log.note_draining("w1")
    await log.renew("w1", lease_seconds=30)

    assert [worker.state for worker in await log.workers()] == ["draining"]
    await commit(log, Commit("f1", lease, (event(1),)))
    await settle(log, "f1", lease)


async def test_a_draining_worker_whose_lease_runs_out_is_declared_dead(log: ExecutionLog) -> None:
    await register(log)
    await log.note_draining("w1")

    dead = await kill_worker(log, "w1")

    assert dead.state == "dead"


async def test_only_a_living_worker_drains(log: ExecutionLog) -> None:
    for worker in ("dead", "stopped"):
        await register(log, worker)
    await kill_worker(log, "dead")
    await log.retire("stopped")

    for worker in ("dead", "stopped", "absent"):
        await log.note_draining(worker)

    assert {worker.id: worker.state for worker in await log.workers()} == {
        "dead": "dead",
        "stopped": "stopped",
    }


async def in_thread(log: ExecutionLog, *workers: str) -> None:
    """Ask from a thread for renewals, and write something after them."""
    for worker_id in workers:
        await asyncio.to_thread(log.keep_alive, worker_id, lease_seconds=30)
    await log.create(new_flow())
    await log.create(new_flow())


async def test_a_thread_brings_no_worker_back_to_life(log: ExecutionLog) -> None:
    for worker in ("dead", "stopped"):
        await register(log, worker)
    await kill_worker(log, "dead")
    await log.retire("stopped")
    before = await log.workers()

    await in_thread(log, "dead", "stopped", "never there")

    assert await log.workers() == before
    with pytest.raises(LeaseLost):
        await log.renew("dead", lease_seconds=30)


async def test_a_thread_that_asks_shortens_no_lease_by_much_and_ends_none(log: ExecutionLog) -> None:
    await register(log, lease_seconds=30)

    await in_thread(log, "w1")

    (worker,) = await log.workers()
    assert is_near(worker.lease_expires_at, log.now() + 30)
    assert worker.state == "alive"


async def test_a_closed_log_renews_nothing_from_a_thread_and_says_nothing(log: ExecutionLog) -> None:
    await register(log)
    await log.close()

    await asyncio.to_thread(log.keep_alive, "w1", lease_seconds=30)


async def test_many_threads_may_ask_for_renewals_beside_other_writes(log: ExecutionLog) -> None:
    await register(log)

    def ask() -> None:
        for _ in range(50):
            log.keep_alive("w1", lease_seconds=30)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(50):
        assert await log.create(new_flow(f"f{number}")) is None
    for thread in threads:
        thread.join()

    assert is_near(await log.renew("w1", lease_seconds=30), log.now() + 30)
