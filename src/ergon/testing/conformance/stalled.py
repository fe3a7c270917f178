"""A flow that kills its workers is set aside: how claims without progress are counted."""

from __future__ import annotations

from ergon.core.commit import Commit
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    kill_worker,
    new_flow,
    record,
    register,
    settle,
    status_of,
)


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
