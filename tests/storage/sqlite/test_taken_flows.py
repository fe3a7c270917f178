"""What a run says that hears from the log that its flow is no longer its own: a warning, unless somebody meant it."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ergon import Scheduler, SqliteExecutionLog, Worker, WorkerOptions, flow, step
from ergon.testing.conformance.kit import until

MEANT, WARNING = logging.INFO, logging.WARNING
VOID = "this run is void and writes nothing more"
STANDS = {
    "running": (WARNING, "it was taken over"),
    "completed": (WARNING, "it was taken over"),
    "failed": (WARNING, "it was taken over"),
    "pending": (WARNING, "the flow is pending by now"),
    "suspended": (WARNING, "the flow is suspended by now"),
    "parked": (WARNING, "the flow is parked by now"),
    "paused": (MEANT, "the flow is paused"),
    "cancelled": (MEANT, "the flow is cancelled"),
    "gone": (MEANT, "the flow is gone"),
}
CHANGES = {
    "running": "UPDATE flows SET owner = 'another', epoch = epoch + 1",
    "gone": "DELETE FROM flows",
    # Not due for long, so that the same worker does not claim it again.
    "pending": "UPDATE flows SET status = 'pending', owner = NULL, wake_at = 1e12",
}


@step
async def long() -> None:
    await asyncio.Event().wait()


@flow
async def stays() -> None:
    await long()


@pytest.mark.parametrize("status", STANDS)
async def test_a_run_that_is_told_says_how_its_flow_stands(
    status: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ergon.executor")
    async with SqliteExecutionLog(file) as log:
        async with Worker(log, flows=[stays], options=WorkerOptions(poll_seconds=0.05)):
            await Scheduler(log).schedule(stays.bind(), id="f")
            await until(lambda: _is_running(log))
            with closing(sqlite3.connect(file, isolation_level=None, timeout=10)) as other:
                other.execute(CHANGES.get(status, f"UPDATE flows SET status = '{status}', owner = NULL"))
            await until(lambda: _voids(caplog))

        assert _voids(caplog) == [(STANDS[status][0], f"flow f: {STANDS[status][1]}; {VOID}")]


async def _is_running(log: SqliteExecutionLog) -> bool:
    found = await log.find("f")
    return found is not None and found.status == "running"


def _voids(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(one.levelno, one.getMessage()) for one in caplog.records if VOID in one.getMessage()]
