"""The conformance suite (`test_*.py` in this folder) runs on each log named here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ergon.storage.log import ExecutionLog
from ergon.storage.sqlite import InMemoryExecutionLog, SqliteExecutionLog
from tests.storage.kit import SettableClock


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture(params=["sqlite", "memory"])
async def log(request, tmp_path, clock) -> AsyncIterator[ExecutionLog]:
    opened = (
        SqliteExecutionLog(tmp_path / "log.db", clock=clock)
        if request.param == "sqlite"
        else InMemoryExecutionLog(clock=clock)
    )
    async with opened:
        yield opened
