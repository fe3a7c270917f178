"""What every story needs: a log on a real file, the same in memory, and a clock that can be set."""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from ergon import (
    ExecutionLog,
    InMemoryExecutionLog,
    PostgresExecutionLog,
    RedisExecutionLog,
    SqliteExecutionLog,
)
from ergon.storage.clock import SystemClock
from tests.servers import postgres, redis

_databases: Final[list[str]] = []
"""This process's, once it has one. Each story has a namespace of its own in it."""
_numbers: Final = count(1)


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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tell a story marked `every_log` on each store; one that sets the clock not on Redis, whose clock is the server's.

    ERGON_STORIES_ON=postgres (or redis) tells all others there too, as far as they ask for `log` only.
    """
    if "log" not in metafunc.fixturenames:
        return
    if metafunc.definition.get_closest_marker("every_log") is None:
        stores = [os.environ.get("ERGON_STORIES_ON", "sqlite")]
    else:
        asked = inspect.signature(metafunc.function).parameters
        stores = ["sqlite", "postgres"] if "clock" in asked else ["sqlite", "postgres", "redis"]
    if stores != ["sqlite"]:
        metafunc.parametrize("log", stores, indirect=True)


@pytest.fixture
async def log(
    request: pytest.FixtureRequest, path: Path, clock: SettableClock
) -> AsyncIterator[ExecutionLog]:
    """A fresh log: on a file, but where the story is told on other stores too."""
    async with await _made(request, path, clock) as opened:
        yield opened


async def _made(request: pytest.FixtureRequest, path: Path, clock: SettableClock) -> ExecutionLog:
    match getattr(request, "param", "sqlite"):
        case "postgres":
            # The tests' server runs without fsync.
            if not _databases:
                _databases.append(await postgres.new_database())
            url, namespace = _databases[0], f"story-{next(_numbers)}"
            asked = "clock" in inspect.signature(request.function).parameters
            return PostgresExecutionLog(
                url, namespace=namespace, require="D1", clock=clock if asked else None
            )
        case "redis":
            return RedisExecutionLog(redis.server_url(), prefix=redis.new_prefix(), ephemeral=True)
        case _:
            return SqliteExecutionLog(path, clock=clock)


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
