"""Workers are replaced one after the other while flows keep coming: nothing is lost, and no step runs twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from ergon import FlowFilter, FlowHandle, Scheduler
from tests.fleet.conftest import Place
from tests.fleet.programs import order

pytestmark = pytest.mark.timeout(300)  # processes are slow to start where many tests run at once

PARTS = ("a", "b", "child", "last")
WORKERS = 3


async def test_a_rolling_restart_under_load_loses_nothing_and_repeats_no_step(log, place: Place) -> None:
    """Each worker is told to stop only when its successor is ready, as an orchestrator does."""
    handles: list[FlowHandle[list[str]]] = []
    replaced = asyncio.Event()

    async def keep_scheduling() -> None:
        while not replaced.is_set():
            number = len(handles)
            call = order.bind(str(place.ledger), str(number))
            handles.append(await Scheduler(log).schedule(call, id=f"order-{number}"))
            await asyncio.sleep(0.1)

    async with AsyncExitStack() as stack:
        olds = await asyncio.gather(
            *(stack.enter_async_context(place.worker(f"old-{n}", lease_seconds=20.0)) for n in range(WORKERS))
        )
        scheduling = asyncio.create_task(keep_scheduling())
        began = []
        for n, old in enumerate(olds):
            await stack.enter_async_context(place.worker(f"new-{n}", lease_seconds=20.0))
            began.append(len(handles))
            old.terminate()
            assert await old.wait() == 0
        replaced.set()
        await scheduling
        async with asyncio.timeout(120):
            results = await asyncio.gather(*(handle.result() for handle in handles))

        assert began[0] > 0, "flows were under way when the first worker was told to stop"
        assert results == [[f"{n}/{part}" for part in PARTS] for n in range(len(handles))]
        wanted = dict.fromkeys((f"{n}/{part}" for n in range(len(handles)) for part in PARTS), 1)
        assert Counter(record["label"] for record in place.records("BEGIN")) == wanted
        assert Counter(record["label"] for record in place.records("END")) == wanted
        assert set((await log.count(FlowFilter())).keys()) == {"completed"}
        ran_on = {record.pid for record in place.records("BEGIN")}
        assert ran_on & {old.pid for old in olds}, "old workers took part"
        assert ran_on - {old.pid for old in olds}, "new workers took part"
