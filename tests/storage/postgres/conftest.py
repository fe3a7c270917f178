from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from ergon import PostgresExecutionLog
from ergon.testing.conformance.kit import until
from tests.servers import postgres
from tests.servers.proxy import Line


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A database of its own."""
    made = await postgres.new_database()
    yield made
    await postgres.drop_database(made)


@pytest.fixture
async def own_url() -> AsyncIterator[str]:
    """The same on a server of ours, whichever was given: tests that stand between need its socket."""
    made = await postgres.new_database(postgres.server().url())
    yield made
    await postgres.drop_database(made)


@pytest.fixture
async def line(own_url: str) -> AsyncIterator[Line]:
    """A bad line to `own_url`."""
    async with Line(postgres.server().socket) as between:
        yield between


@pytest.fixture
async def log(own_url: str, line: Line) -> AsyncIterator[PostgresExecutionLog]:
    """A log at the end of the bad line, which listens for hints already."""
    async with PostgresExecutionLog(line.url(database_of(own_url)), require="D1") as opened:
        await until(lambda: any("LISTEN" in sql for sql in line.saw))
        yield opened


@pytest.fixture
async def straight(own_url: str, log: PostgresExecutionLog) -> AsyncIterator[PostgresExecutionLog]:
    """The same log by a good line: what other processes see."""
    async with PostgresExecutionLog(own_url, require="D1") as opened:
        yield opened


def acts(line: Line, since: int) -> list[str]:
    """What was said to the server since so many statements, but for hints."""
    return [sql for sql in line.saw[since:] if "pg_notify" not in sql]


def database_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")
