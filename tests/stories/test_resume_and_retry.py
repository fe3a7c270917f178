"""A person who means to resume a flow must not retry it, nor the other way round."""

from __future__ import annotations

import pytest

from ergon import Scheduler
from ergon.core.commit import Commit
from ergon.core.status import TaskStatus
from ergon.errors import IllegalMove
from ergon.testing.conformance.kit import claimed_flow, commit, event, new_flow, register, settle, status_of


@pytest.mark.every_log
async def test_resume_is_for_paused_flows_and_retry_for_failed_ones(log):
    await register(log)
    await log.create(new_flow("paused"))
    await log.move("paused", TaskStatus.PAUSED)
    running = await claimed_flow(log, "running")
    await settle(log, "failed", await claimed_flow(log, "failed"), TaskStatus.FAILED, output='"boom"')
    scheduler = Scheduler(log)

    with pytest.raises(IllegalMove, match=r"is failed; only a paused or parked .* `retry`"):
        await scheduler.handle("failed").resume()
    with pytest.raises(IllegalMove, match=r"is paused; only a failed .* `resume`"):
        await scheduler.handle("paused").retry()
    for act in (scheduler.handle("running").resume, scheduler.handle("running").retry):
        with pytest.raises(IllegalMove, match="is running"):
            await act()
    await commit(log, Commit("running", running, (event(1),)))

    await scheduler.handle("failed").retry()
    await scheduler.handle("paused").resume()
    assert [await status_of(log, id) for id in ("failed", "paused")] == [TaskStatus.PENDING] * 2
