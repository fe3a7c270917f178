"""Whoever waits for a result gets it, or an error: also when hints are lost, and when the log has a defect."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ergon import ExecutionLog, Scheduler, SqliteExecutionLog, flow, wait_signal
from ergon.core.commit import Hint
from tests.stories.helpers import soon, start, until_status, worker


class DeafLog(SqliteExecutionLog):
    """Nothing of what changes is heard of."""

    def subscribe(self, listener: Callable[[Hint], None]) -> Callable[[], None]:
        return super().subscribe(lambda _: None)


@flow
async def approval() -> str:
    return await wait_signal("go", str)


async def test_who_waits_for_a_result_gets_it_without_hints_while_others_come_to_wait_all_the_time(
    path: Path,
) -> None:
    async with SqliteExecutionLog(path) as log, DeafLog(path) as deaf, worker(log, approval):
        handle = await start(log, approval.bind())
        await start(log, approval.bind(), id="other")
        await until_status(handle, "suspended")
        waiting = asyncio.create_task(Scheduler(deaf).handle("f", str).result())

        async def come_and_go() -> None:
            while True:
                with contextlib.suppress(TimeoutError):
                    await Scheduler(deaf).handle("other").result(0.05)

        coming = asyncio.create_task(come_and_go())
        await asyncio.sleep(0)  # both wait
        await handle.signal("go", "approved")

        assert await soon(waiting) == "approved"
        coming.cancel()


async def test_who_waits_for_a_result_hears_of_a_defect_of_the_log(
    log: ExecutionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Sequence[str]) -> Any:
        raise RuntimeError("a defect of the driver")

    handle = await start(log, approval.bind())
    monkeypatch.setattr(log, "ended_or_parked", broken)

    with pytest.raises(RuntimeError, match="driver"):
        await soon(handle.result())
