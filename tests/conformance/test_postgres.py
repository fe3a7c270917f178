"""The conformance suite on PostgreSQL: each test has a database of its own on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from ergon import PostgresExecutionLog
from ergon.testing.conformance import *  # noqa: F403 - the line that brings the behaviours in
from tests.servers import postgres


@dataclass
class PostgresStore:
    """One database."""

    url: str

    def open(self) -> PostgresExecutionLog:
        return PostgresExecutionLog(self.url, require="D1")  # the tests' server runs without fsync

    async def interrupt(self) -> None:
        await postgres.execute(
            self.url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )


@pytest.fixture
async def store() -> AsyncIterator[PostgresStore]:
    url = await postgres.new_database()
    yield PostgresStore(url)
    await postgres.drop_database(url)
