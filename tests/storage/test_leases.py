"""Conformance: who is alive, and what a dead worker can still do (nothing)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ergon.core.commit import Commit, Lease, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.process import is_gone, this_process
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
    worker_record,
)


async def test_registering_returns_the_worker_as_the_log_keeps_it(log):
    kept = await log.register(
        worker_record("w1", flows=("a",), queues=("q",), versions=("v1",)), lease_seconds=30
    )

    assert kept.lease_expires_at == log.now() + 30
    assert (kept.state, kept.started_at, kept.versions) == ("alive", log.now(), ("v1",))
    assert await log.workers() == [kept]


async def test_renewing_extends_the_lease_and_says_what_flows_do(log, clock):
    await register(log)
    await claimed_flow(log)
    clock.advance(20)

    expires_at = await log.renew("w1", lease_seconds=30, doing={"f1": "in step charge", "other": "x"})

    assert expires_at == log.now() + 30
    assert (await log.find("f1")).reason == "in step charge"
    clock.advance(29)
    assert await log.reap() == []


async def in_thread(log, *workers):
    """Ask from a thread for renewals, and wait until they have been dealt with: what is written later comes later."""
    for worker_id in workers:
        await asyncio.to_thread(log.keep_alive, worker_id, lease_seconds=30)
    await log.create(new_flow(f"after-{time.monotonic_ns()}"))
    await log.create(new_flow(f"after-{time.monotonic_ns()}"))


async def test_a_lease_can_be_extended_from_a_thread_while_the_event_loop_is_blocked(log, clock):
    await register(log)
    await log.workers()
    clock.advance(20)

    thread = threading.Thread(target=log.keep_alive, args=("w1",), kwargs={"lease_seconds": 30})
    thread.start()
    time.sleep(0.2)
    clock.advance(29)  # by now it has been written, or the lease has run out

    assert await log.reap() == []
    thread.join()


async def test_from_a_thread_too_a_lease_that_was_taken_or_given_back_stays_so(log, clock):
    await register(log, "dead")
    await register(log, "stopped")
    await register(log, "other", lease_seconds=1_000)
    await log.retire("stopped")
    clock.advance(30)
    assert [worker.id for worker in await log.reap()] == ["dead"]
    before = await log.workers()

    await in_thread(log, "dead", "stopped", "never there")

    assert await log.workers() == before
    with pytest.raises(LeaseLost):
        await log.renew("dead", lease_seconds=30)


async def test_a_closed_log_renews_nothing_from_a_thread_and_says_nothing(log):
    await register(log)
    await log.close()

    await asyncio.to_thread(log.keep_alive, "w1", lease_seconds=30)


async def test_many_threads_may_ask_for_renewals_beside_other_writes(log, clock):
    await register(log)
    threads = [
        threading.Thread(target=lambda: [log.keep_alive("w1", lease_seconds=30) for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for number in range(200):
        assert await log.create(new_flow(f"f{number}")) is None
    for thread in threads:
        thread.join()
    assert await log.renew("w1", lease_seconds=30) == log.now() + 30


async def test_a_worker_whose_lease_ran_out_loses_its_flows_and_every_later_write(log, clock):
    await register(log, "old")
    await register(log, "new", lease_seconds=1_000)
    await log.create(new_flow("f1"))
    await log.create(new_flow("f2"))
    old = await claim_one(log, "f1", "old")
    clock.advance(30)

    (dead,) = await log.reap()

    assert (dead.id, dead.state) == ("old", "dead")
    assert await status_of(log, "f1") is TaskStatus.PENDING
    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", old.lease, (event(1),)))
    with pytest.raises(LeaseLost):
        await log.renew("old", lease_seconds=30)
    with pytest.raises(LeaseLost):
        await claim(log, "old")
    with pytest.raises(LeaseLost):
        await log.create(new_flow("f3", owner=Lease("old", 1)))
    with pytest.raises(LeaseLost):
        await register(log, "old")
    assert await log.retire("old") == 0
    assert await log.reap() == []
    taken = await claim_one(log, "f1", "new")
    assert taken.lease.epoch == old.lease.epoch + 1
    with pytest.raises(LeaseLost):
        await settle(log, "f1", old.lease, TaskStatus.COMPLETED)
    await commit(log, Commit("f1", taken.lease, (event(1),)))


async def test_setting_the_wall_clock_neither_ends_nor_extends_a_lease(log, clock):
    await register(log)

    clock.step_wall(100_000)
    assert await log.reap() == []
    clock.step_wall(-200_000)
    assert await log.reap() == []
    clock.advance(30)
    assert len(await log.reap()) == 1


async def test_a_worker_of_an_earlier_start_of_the_machine_is_dead(log):
    await register(log, boot_id="11111111-2222-3333-4444-555555555555", lease_seconds=10_000)

    assert [one.id for one in await log.reap()] == ["w1"]


async def test_a_worker_whose_process_ended_is_dead_before_its_lease_is_over(log):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = _start_of(child.pid)
    await register(log, pid=child.pid, process_start=start, lease_seconds=10_000)
    await claimed_flow(log)
    assert await log.reap() == []

    child.kill()
    # A zombie first: nobody has waited for it yet.
    while not is_gone(pid=child.pid, process_start=start, boot=this_process().boot_id):
        pass
    assert [one.id for one in await log.reap()] == ["w1"]
    child.communicate()

    assert await status_of(log, "f1") is TaskStatus.PENDING
    assert is_gone(pid=child.pid, process_start=start, boot=this_process().boot_id)


async def test_a_reused_pid_is_not_the_same_process(log):
    here = this_process()
    namespace = here.process_start.partition("/")[0]
    await register(log, process_start=f"{namespace}/1", lease_seconds=10_000)

    assert [one.id for one in await log.reap()] == ["w1"]


async def test_a_process_in_another_pid_namespace_is_judged_by_its_lease_alone(log, clock):
    await register(log, pid=2_000_000, process_start="1/1")

    assert await log.reap() == []
    clock.advance(30)
    assert len(await log.reap()) == 1


async def test_retiring_gives_the_flows_back_and_ends_the_incarnation(log):
    await register(log)
    await register(log, "w2")
    lease = await claimed_flow(log)
    await claimed_flow(log, "f2")

    assert await log.retire("w1") == 2
    assert await log.retire("w1") == 0

    assert {one.id: one.state for one in await log.workers()} == {"w1": "stopped", "w2": "alive"}
    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", lease, settled=Settled(TaskStatus.COMPLETED)))
    assert len(await claim(log, "w2")) == 2


def _start_of(pid: int) -> str:
    namespace = this_process().process_start.partition("/")[0]
    stat = Path(f"/proc/{pid}/stat").read_text()
    return f"{namespace}/{stat.rpartition(')')[2].split()[19]}"


async def test_what_a_worker_owns_and_does_not_know_of_goes_back(log):
    """The answer of a claim was lost: its flows have an owner who lives and runs none of them."""
    await register(log)
    known = await claimed_flow(log, "f1")
    await claimed_flow(log, "f2")

    assert await log.disown("w1", [("f1", known.epoch)]) == ("f2",)

    assert await status_of(log, "f1") is TaskStatus.RUNNING
    assert await status_of(log, "f2") is TaskStatus.PENDING
    assert await log.disown("w1", [("f1", known.epoch)]) == ()
    assert await log.disown("w1", [("f1", known.epoch - 1)]) == ("f1",), "it was claimed once more since"
    assert await log.disown("another", []) == ()


async def test_a_draining_worker_is_alive_and_says_so(log):
    await register(log)
    lease = await claimed_flow(log)

    await log.note_draining("w1")
    await log.renew("w1", lease_seconds=30)

    assert [worker.state for worker in await log.workers()] == ["draining"]
    await commit(log, Commit("f1", lease, (event(1),)))
    await log.retire("w1")
    await log.note_draining("w1")
    assert [worker.state for worker in await log.workers()] == ["stopped"]
