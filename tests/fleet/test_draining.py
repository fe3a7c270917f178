"""SIGTERM: a worker lets go of everything by its deadline, and others go on with it."""

from __future__ import annotations

import time

import pytest

from ergon import FlowFilter, Scheduler
from tests.fleet.conftest import Place
from tests.fleet.programs import asking, hanging, order
from tests.storage.kit import until

pytestmark = pytest.mark.timeout(180)  # processes are slow to start where many tests run at once

DRAIN_SECONDS = 0.5


async def test_a_second_after_the_deadline_of_a_drain_nothing_is_leased(log, place: Place, within) -> None:
    async def drained(number: int) -> float:
        scheduler = Scheduler(log)
        async with place.worker(f"w-{number}", drain_seconds=DRAIN_SECONDS) as process:
            hung = [
                await scheduler.schedule(hanging.bind(str(place.ledger), f"h-{number}-{n}")) for n in range(5)
            ]
            for n in range(5):
                await scheduler.schedule(asking.bind())
                await scheduler.schedule(order.bind(str(place.ledger), f"{number}-{n}"))
            await until(
                lambda: {f"h-{number}-{n}" for n in range(5)} <= {r["label"] for r in place.records("BEGIN")}
            )
            process.terminate()
            told_at = time.monotonic()
            await until(lambda: _nothing_is_leased(log))
            took = time.monotonic() - told_at
            assert await process.wait() == 0
        assert {worker.state for worker in await log.workers()} == {"stopped"}
        async with place.worker(f"next-{number}"):  # what was interrupted runs again, there
            for n, handle in enumerate(hung):
                assert await handle.result(20) == f"h-{number}-{n}"
        return took

    await within(DRAIN_SECONDS + 1.0, drained)


async def _nothing_is_leased(log) -> bool:
    found, _ = await log.list(FlowFilter(), limit=1000)
    return not any(flow.owner for flow in found) and all(
        worker.state not in ("alive", "draining") for worker in await log.workers()
    )
