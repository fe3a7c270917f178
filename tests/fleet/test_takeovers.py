"""`kill -9`: another worker goes on within the lease and two seconds, wherever the dead one was."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest

from ergon import Scheduler, Worker, WorkerOptions
from tests.fleet.conftest import Place
from tests.fleet.programs import FLOWS, long
from tests.storage.kit import until

pytestmark = pytest.mark.timeout(180)  # processes are slow to start where many tests run at once

LEASE_SECONDS = 2.0
STEPS = 40


@pytest.mark.parametrize("machine", ["this machine", "another machine"])
async def test_a_killed_workers_flow_goes_on_within_the_lease_and_two_seconds(
    log, place: Place, within, machine: str
) -> None:
    """With its default options the other one looks once a second. Nobody can look up a pid of another machine."""

    async def taken_over(number: int) -> float:
        place.ledger.write_bytes(b"")
        async with place.worker(
            f"first-{number}", lease_seconds=LEASE_SECONDS, elsewhere=machine == "another machine"
        ) as first:
            handle = await Scheduler(log).schedule(long.bind(str(place.ledger), STEPS), id=f"long-{number}")
            await until(lambda: len(place.records("END")) >= 5)
            options = WorkerOptions(lease_seconds=LEASE_SECONDS)
            async with Worker(log, f"other-{number}", flows=FLOWS, options=options):
                committed = {event.payload for event in await log.history(handle.id)}
                first.send_signal(signal.SIGKILL)
                killed_at = time.monotonic()
                await first.wait()
                await until(lambda: any(record.pid == os.getpid() for record in place.records("BEGIN")))
                took = time.monotonic() - killed_at
                (dead,) = [worker for worker in await log.workers() if worker.name == f"first-{number}"]
                assert await handle.result(30) == [str(n) for n in range(STEPS)]

        begun = Counter(record["label"] for record in place.records("BEGIN"))
        again = [label for label, times in begun.items() if times > 1]
        assert len(again) <= 1, "only the step that was open may run again"
        assert not {f'"{label}"' for label in again} & committed, "what was committed does not"
        if machine == "another machine":
            resumed_at = min(r["log_at"] for r in place.records("BEGIN") if r.pid == os.getpid())
            assert resumed_at >= dead.lease_expires_at, "its lease was waited for, by the log's clock"
        return took

    await within(LEASE_SECONDS + 2.0, taken_over)
