"""The servers that a run measures on: started by it, durable as in production, and ended with it.

What is given by URL in the environment is used instead (`ERGON_TEST_POSTGRES_URL`, `ERGON_TEST_REDIS_URL`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from benchmarks.model import POSTGRES, REDIS

_POSTGRES_SETTINGS: Final = {
    "fsync": "on", "synchronous_commit": "on", "autovacuum": "on", "shared_buffers": "128MB", "max_wal_size": "2GB",
}  # fmt: skip
_REDIS_OPTIONS: Final = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")


class Servers:
    """One server of each kind, started when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._urls: dict[str, str] = {}

    def fresh(self, store: str) -> str:
        """The URL of an empty store."""
        if store not in self._urls:
            self._urls[store] = self._start_postgres() if store == POSTGRES else self._start_redis()
        return self._new_database() if store == POSTGRES else self._emptied()

    def _start_postgres(self) -> str:
        from tests.servers.postgres import VARIABLE, Postgres

        if given := os.environ.get(VARIABLE):
            return given
        server = Postgres(settings=_POSTGRES_SETTINGS, on_disk=True)
        self._stack.callback(server.stop)
        return server.url()

    def _new_database(self) -> str:
        from tests.servers.postgres import new_database

        return asyncio.run(new_database(self._urls[POSTGRES]))

    def _start_redis(self) -> str:
        from tests.servers.redis import VARIABLE, RedisServer

        if given := os.environ.get(VARIABLE):
            return given
        server = RedisServer(*_REDIS_OPTIONS, on_disk=True)
        self._stack.callback(server.stop)
        return server.url

    def _emptied(self) -> str:
        import redis

        with redis.Redis.from_url(self._urls[REDIS]) as client:
            client.flushall()
        return self._urls[REDIS]


@contextmanager
def serving() -> Iterator[Servers]:
    """Servers for the block."""
    with ExitStack() as stack:
        yield Servers(stack)
