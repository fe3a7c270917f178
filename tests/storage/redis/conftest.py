"""A log on the server of this test run, and one on a server that a test may break."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from ergon.storage.redis import RedisExecutionLog
from tests.servers.redis import RedisServer, new_prefix, running, server_url


@pytest.fixture
def prefix() -> str:
    return new_prefix()


@pytest.fixture
async def log(prefix: str) -> AsyncIterator[RedisExecutionLog]:
    async with RedisExecutionLog(server_url(), prefix=prefix, ephemeral=True) as opened:
        yield opened


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server that flushes each write, for this test alone."""
    with running() as server:
        yield server


@pytest.fixture
def server_with() -> Iterator[Callable[..., RedisServer]]:
    """Start servers with other settings."""
    started: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        started.append(RedisServer(*options))
        return started[-1]

    yield start
    for server in started:
        server.stop()
