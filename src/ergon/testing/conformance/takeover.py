"""What becomes of the flows of workers that are gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ergon.core.commit import Commit, Lease
from ergon.core.status import TaskStatus
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


def _start_of(pid: int) -> str:
    namespace = this_process().process_start.partition("/")[0]
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    return f"{namespace}/{stat.rpartition(')')[2].split()[19]}"
