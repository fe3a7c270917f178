"""What every story needs: a log on a real file, the same in memory, and a clock that can be set."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ergon import ExecutionLog, InMemoryExecutionLog, SqliteExecutionLog
from ergon.storage.clock import SystemClock


class SettableClock(SystemClock):
    """The machine's clocks, moved forward at will: hours pass without waiting."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self.boot_ahead = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead

    def boot(self) -> float:
        return super().boot() + self.boot_ahead

    def pass_time(self, seconds: float) -> None:
        """Let so many seconds pass for stored times; leases, kept by the other clock, stay as they are."""
        self.ahead += seconds

    def outlive_leases(self) -> None:
        """Let so much time pass that every lease has run out."""
        self.boot_ahead += 3_600.0


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "flows.db"


@pytest.fixture
async def log(path: Path, clock: SettableClock) -> AsyncIterator[ExecutionLog]:
    async with SqliteExecutionLog(path, clock=clock) as opened:
        yield opened


@pytest.fixture(params=["file", "memory"])
async def either_log(
    request: pytest.FixtureRequest, path: Path, clock: SettableClock
) -> AsyncIterator[ExecutionLog]:
    """For stories that must read the same on a file and in memory."""
    chosen = (
        SqliteExecutionLog(path, clock=clock)
        if request.param == "file"
        else InMemoryExecutionLog(clock=clock)
    )
    async with chosen as opened:
        yield opened
