"""A worker whose line to its log breaks stops itself before anybody can take its flows, by the log's clock."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from ergon import Scheduler, Worker, WorkerOptions
from tests.fleet.conftest import Place
from tests.fleet.programs import FLOWS, long
from tests.servers.tap import Tap
from tests.storage.kit import until

pytestmark = pytest.mark.timeout(180)  # processes are slow to start where many tests run at once

LEASE_SECONDS = 1.5
STEPS = 36
WAYS: dict[str, Callable[[Tap], None]] = {
    "drop": Tap.drop,
    "delay": lambda tap: tap.delay(3.0),
    "reset": Tap.reset,
    "cut after COMMIT": Tap.lose_answers,
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_worker_that_is_cut_off_starts_nothing_once_its_lease_can_be_taken(
    log, place: Place, way: str
) -> None:
    """It lives, so nobody here can tell that it is gone but by its lease. Later its line is good again."""
    async with Tap(place.port) as tap:
        options: dict[str, Any] = {"lease_seconds": LEASE_SECONDS, "reap_seconds": 0.2, "poll_seconds": 0.2}
        async with place.worker("cut-off", port=tap.port, **options) as process:
            handle = await Scheduler(log).schedule(long.bind(str(place.ledger), STEPS), id="long")
            await until(lambda: len(place.records("END")) >= 5)
            async with Worker(log, "other", flows=FLOWS, options=WorkerOptions(**options)):
                WAYS[way](tap)
                await until(lambda: any(record.pid == os.getpid() for record in place.records("BEGIN")))
                (gone,) = [worker for worker in await log.workers() if worker.name == "cut-off"]
                tap.heal()
                assert await handle.result(30) == [str(n) for n in range(STEPS)]
            events = await log.history("long")
            process.kill()

    mine = [record for record in place.records("BEGIN") if record.pid == os.getpid()]
    its = [record for record in place.records("BEGIN") if record.pid == process.pid]
    assert gone.state == "dead"
    assert its[-1]["log_at"] < gone.lease_expires_at <= mine[0]["log_at"]
    assert [event.seq for event in events] == list(range(1, STEPS + 1))
    assert [event.payload for event in events] == [f'"{n}"' for n in range(STEPS)]
    begun = Counter(record["label"] for record in (*its, *mine))
    assert set(begun) == {str(n) for n in range(STEPS)}
    assert sum(begun.values()) <= STEPS + 1, "only the step that was open may run again"
