"""What becomes of the flows of workers that are gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ergon.core.commit import Commit, Lease, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.storage.process import this_process
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    ids,
    kill_worker,
    new_flow,
    record,
    register,
    settle,
    signal,
    status_of,
    until,
)


async def test_a_worker_whose_lease_ran_out_loses_its_flows(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    for id in ("f1", "f2"):
        await claimed_flow(log, id)
    other = await claimed_flow(log, "other", "w2")

    dead = await kill_worker(log, "w1")

    assert (dead.id, dead.state) == ("w1", "dead")
    for id in ("f1", "f2"):
        flow = await record(log, id)
        assert (flow.status, flow.owner) == (TaskStatus.PENDING, None)
    await commit(log, Commit("other", other, (event(1),)))


async def test_a_worker_is_declared_dead_once(log: ExecutionLog) -> None:
    await register(log)
    await kill_worker(log, "w1")

    assert await log.reap() == []
    assert await log.retire("w1") == 0


async def test_all_workers_whose_leases_ran_out_are_declared_dead_together(log: ExecutionLog) -> None:
    for worker in ("w1", "w2", "w3"):
        await register(log, worker)
    for worker in ("w1", "w3"):
        await log.renew(worker, lease_seconds=0.001)
    dead: set[str] = set()

    async def both_are_dead() -> bool:
        dead.update(worker.id for worker in await log.reap())
        return len(dead) == 2

    await until(both_are_dead)

    assert dead == {"w1", "w3"}


async def test_nobody_is_declared_dead_while_all_leases_run(log: ExecutionLog) -> None:
    for worker in ("w1", "w2"):
        await register(log, worker)
    await log.retire("w2")

    assert await log.reap() == []


async def test_the_next_owner_goes_on_where_the_last_one_stopped(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    lease = await claimed_flow(log)
    await log.send(signal("f1", payload='"one"'))
    await log.send(signal("f1", payload='"two"'))
    (first, second) = await log.inbox("f1")
    await commit(log, Commit("f1", lease, (event(1),), consumed=((first.id, 1),)))
    await kill_worker(log, "w1")

    (taken_over,) = await claim(log, "w2")

    assert taken_over.lease == Lease("w2", lease.epoch + 1)
    assert taken_over.events == [event(1)]
    assert taken_over.inbox == [second]


async def test_a_takeover_keeps_the_start_and_the_deadline(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    await log.create(new_flow("f1", timeout_seconds=60.0))
    first = await claim_one(log, "f1")
    await kill_worker(log, "w1")

    again = await claim_one(log, "f1", "w2")

    assert (again.flow.started_at, again.flow.deadline_at) == (first.flow.started_at, first.flow.deadline_at)


async def test_flows_a_dead_worker_had_let_go_stay_as_they_are(log: ExecutionLog) -> None:
    await register(log)
    for id, status in [("asleep", TaskStatus.SUSPENDED), ("done", TaskStatus.COMPLETED)]:
        await settle(log, id, await claimed_flow(log, id), status)
    await claimed_flow(log, "paused")
    await log.move("paused", TaskStatus.PAUSED)

    await kill_worker(log, "w1")

    assert [await status_of(log, id) for id in ("asleep", "done", "paused")] == [
        TaskStatus.SUSPENDED,
        TaskStatus.COMPLETED,
        TaskStatus.PAUSED,
    ]


async def test_flows_of_a_dead_worker_are_claimed_by_priority_again(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    for id, priority in [("low", 0), ("high", 9), ("middle", 5)]:
        await claimed_flow(log, id, priority=priority)
    await kill_worker(log, "w1")

    assert ids(await claim(log, "w2")) == ["high", "middle", "low"]


async def test_a_worker_whose_process_ended_is_dead_before_its_lease_is_over(log: ExecutionLog) -> None:
    if not this_process().process_start:
        return  # this system tells nobody when a process started
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    await register(log, pid=child.pid, process_start=_start_of(child.pid))
    await claimed_flow(log)
    assert await log.reap() == []

    child.kill()
    child.communicate()

    assert [worker.id for worker in await log.reap()] == ["w1"]
    assert await status_of(log, "f1") is TaskStatus.PENDING


async def test_a_reused_pid_is_not_the_same_process(log: ExecutionLog) -> None:
    here = this_process()
    if not here.process_start:
        return
    namespace = here.process_start.partition("/")[0]
    await register(log, process_start=f"{namespace}/1")

    assert [one.id for one in await log.reap()] == ["w1"]


async def test_a_process_in_another_pid_namespace_is_judged_by_its_lease_alone(log: ExecutionLog) -> None:
    await register(log, pid=2_000_000, process_start="1/1")

    assert await log.reap() == []
    assert (await kill_worker(log, "w1")).id == "w1"


async def test_a_worker_that_tells_nothing_of_its_process_is_judged_by_its_lease_alone(
    log: ExecutionLog,
) -> None:
    await register(log, pid=2_000_000, process_start="", boot_id="")

    assert await log.reap() == []
    assert (await kill_worker(log, "w1")).id == "w1"


async def test_retiring_gives_the_flows_back_and_ends_the_incarnation(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    lease = await claimed_flow(log)
    await claimed_flow(log, "f2")

    assert await log.retire("w1") == 2
    assert await log.retire("w1") == 0
    assert await log.retire("never there") == 0

    assert {one.id: one.state for one in await log.workers()} == {"w1": "stopped", "w2": "alive"}
    with pytest.raises(LeaseLost):
        await commit(log, Commit("f1", lease, settled=Settled(TaskStatus.COMPLETED)))
    assert len(await claim(log, "w2")) == 2


async def test_a_worker_that_retired_from_draining_has_stopped(log: ExecutionLog) -> None:
    await register(log)
    await log.note_draining("w1")

    await log.retire("w1")

    assert [worker.state for worker in await log.workers()] == ["stopped"]


async def test_what_a_worker_owns_and_does_not_know_of_goes_back(log: ExecutionLog) -> None:
    """The answer of a claim was lost: its flows have an owner who lives and runs none of them."""
    await register(log)
    known = await claimed_flow(log, "f1")
    await claimed_flow(log, "f2")

    assert list(await log.disown("w1", [("f1", known.epoch)])) == ["f2"]

    assert await status_of(log, "f1") is TaskStatus.RUNNING
    assert await status_of(log, "f2") is TaskStatus.PENDING
    assert list(await log.disown("w1", [("f1", known.epoch)])) == []


async def test_a_worker_that_knows_of_an_earlier_claim_does_not_know_of_the_last_one(
    log: ExecutionLog,
) -> None:
    await register(log)
    lease = await claimed_flow(log, "f1")

    assert list(await log.disown("w1", [("f1", lease.epoch - 1)])) == ["f1"]

    assert await status_of(log, "f1") is TaskStatus.PENDING


async def test_disowning_takes_nothing_from_another_worker(log: ExecutionLog) -> None:
    await register(log)
    await register(log, "w2")
    lease = await claimed_flow(log, "theirs", "w2")

    assert list(await log.disown("w1", [])) == []
    assert list(await log.disown("never there", [])) == []

    await commit(log, Commit("theirs", lease, (event(1),)))


async def test_what_was_disowned_can_be_claimed_again_at_once(log: ExecutionLog) -> None:
    await register(log)
    await claimed_flow(log, "f1")
    await log.disown("w1", [])

    assert (await claim_one(log, "f1")).lease == Lease("w1", 2)


async def test_a_flow_that_kills_its_workers_is_parked_with_the_reason(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    for n in range(3):
        await register(log, f"w{n}")
        (claimed,) = await claim(log, f"w{n}", claims_stalled_max=3)
        assert claimed.flow.claims_stalled == n
        await kill_worker(log, f"w{n}")
    await register(log, "w9")

    assert await claim(log, "w9", claims_stalled_max=3) == []

    flow = await record(log, "f1")
    assert (flow.status, flow.owner) == (TaskStatus.PARKED, None)
    assert "3 times" in flow.reason


async def test_a_flow_that_was_parked_for_its_dead_workers_starts_counting_anew_when_resumed(
    log: ExecutionLog,
) -> None:
    await log.create(new_flow("f1"))
    for n in range(2):
        await register(log, f"w{n}")
        await claim(log, f"w{n}", claims_stalled_max=1)
        if n == 0:
            await kill_worker(log, "w0")
    assert await status_of(log, "f1") is TaskStatus.PARKED

    assert (await log.move("f1", TaskStatus.PENDING)).claims_stalled == 0

    assert (await claim_one(log, "f1", "w1", claims_stalled_max=1)).flow.claims_stalled == 0


async def _die(log: ExecutionLog, worker: str, *, progress: bool = False) -> int:
    """Claim the one flow, perhaps write something, and die; returns the stalled claims before."""
    await register(log, worker)
    (claimed,) = await claim(log, worker)
    if progress:
        await commit(log, Commit("f1", claimed.lease, (event(len(claimed.events) + 1),)))
    await kill_worker(log, worker)
    return claimed.flow.claims_stalled


async def test_progress_resets_the_count_of_stalled_claims(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))

    assert await _die(log, "w0") == 0
    assert await _die(log, "w1") == 1
    assert await _die(log, "w2", progress=True) == 2
    assert await _die(log, "w3") == 0
    assert await _die(log, "w4") == 1


async def test_giving_back_willingly_resets_the_count_of_stalled_claims(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    await _die(log, "w0")
    await register(log, "w1")
    (claimed,) = await claim(log, "w1")
    assert claimed.flow.claims_stalled == 1
    await settle(log, "f1", claimed.lease, TaskStatus.PENDING)

    assert (await claim_one(log, "f1", "w1")).flow.claims_stalled == 0


async def test_retiring_does_not_count_as_a_stalled_claim(log: ExecutionLog) -> None:
    await log.create(new_flow("f1"))
    for n in range(3):
        await register(log, f"w{n}")
        (claimed,) = await claim(log, f"w{n}", claims_stalled_max=1)
        assert claimed.flow.claims_stalled == 0
        await log.retire(f"w{n}")


async def test_a_claim_whose_answer_was_lost_counts_as_a_stalled_one(log: ExecutionLog) -> None:
    """A flow that gets lost again and again is parked some day."""
    await register(log)
    await claimed_flow(log, "f1")
    await log.disown("w1", [])

    assert (await claim_one(log, "f1")).flow.claims_stalled == 1


def _start_of(pid: int) -> str:
    namespace = this_process().process_start.partition("/")[0]
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return f"{namespace}/{stat.rpartition(')')[2].split()[19]}"
