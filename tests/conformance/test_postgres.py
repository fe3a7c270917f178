"""The conformance suite on PostgreSQL: each test finds an empty schema on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Final

import pytest

from ergon import PostgresExecutionLog
from ergon.testing.conformance import *  # noqa: F403 - the line that brings the behaviours in
from tests.servers import postgres

TESTS_A_SCHEMA: Final = 50
"""What tests delete stays in its files."""
_numbers: Final = count()


@cache
def database() -> str:
    """This process's: a schema is made in a tenth of the time that a database takes."""
    return asyncio.run(postgres.new_database())


@dataclass
class PostgresStore:
    """One schema."""

    url: str
    schema: str

    def open(self, namespace: str = "") -> PostgresExecutionLog:
        # The tests' server runs without fsync.
        return PostgresExecutionLog(self.url, schema=self.schema, namespace=namespace, require="D1")

    async def interrupt(self) -> None:
        await postgres.execute(
            self.url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )


@pytest.fixture(scope="session")
def url() -> str:
    """Before there is an event loop."""
    return database()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    made = PostgresStore(url, f"log_{next(_numbers) // TESTS_A_SCHEMA}")
    yield made
    await postgres.clear_schema(url, made.schema)
