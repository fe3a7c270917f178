"""The conformance suite on a Redis or Valkey server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from ergon.storage.redis import RedisExecutionLog
from ergon.testing.conformance import *  # noqa: F403 - the line that brings the behaviours in
from tests.servers.redis import new_prefix, server_url


class RedisStore:
    """One prefix on the server of this test run."""

    def __init__(self) -> None:
        self.url, self.prefix = server_url(), new_prefix()

    def open(self, namespace: str = "") -> RedisExecutionLog:
        return RedisExecutionLog(self.url, prefix=self.prefix, namespace=namespace, ephemeral=True)

    async def interrupt(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")

    def clear(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            for key in client.scan_iter(f"{{{self.prefix}[:/]*", count=1000):
                client.unlink(key)


@pytest.fixture
def store() -> Iterator[RedisStore]:
    made = RedisStore()
    yield made
    made.clear()
