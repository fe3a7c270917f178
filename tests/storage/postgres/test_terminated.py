"""An operator ends sessions with `pg_terminate_backend`, at the worst moments: everything has happened, and once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from ergon import PostgresExecutionLog
from ergon.core.commit import Commit, Settled
from ergon.core.status import TaskStatus
from ergon.storage.postgres import landed
from ergon.testing.conformance.kit import (
    claim_one,
    claimed_flow,
    commit,
    event,
    new_flow,
    register,
    signal,
    status_of,
    until,
)
from tests.servers import postgres
from tests.servers.proxy import Line

OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


class Operator:
    """Ends all sessions of a database but its own."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def end_all(self, only: str = "") -> int:
        ended = await self._connection.fetch(f"SELECT pid, pg_terminate_backend(pid) {OTHERS} {only}")
        pids = [row[0] for row in ended]

        async def are_gone() -> bool:
            return not await self._connection.fetchval(f"SELECT count(*) {OTHERS} AND pid = ANY ($1)", pids)

        await until(are_gone)
        return len(pids)


@pytest.fixture
async def operator(own_url: str) -> AsyncIterator[Operator]:
    connection = await asyncpg.connect(own_url)
    yield Operator(connection)
    await connection.close()


async def test_sessions_that_are_ended_before_any_statement_lose_and_repeat_nothing(
    log: PostgresExecutionLog, straight: PostgresExecutionLog, line: Line, operator: Operator
) -> None:
    await register(log)
    seen, number = 0, 0

    async def end_in_time(sql: str) -> None:
        nonlocal seen
        if "LISTEN" not in sql and "pg_notify" not in sql:  # they come when they like
            seen += 1
            if seen == number:
                await operator.end_all()

    line.before_statement = end_in_time
    while number <= seen:
        seen, number = 0, number + 1
        flow = f"f{number}"
        assert await log.create(new_flow(flow)) is None
        lease = (await claim_one(log, flow)).lease
        await commit(log, Commit(flow, lease, (event(1),)))
        await log.send(signal(flow))
        (message,) = await log.inbox(flow)
        end = Settled(TaskStatus.COMPLETED, "1")
        await commit(log, Commit(flow, lease, (event(2),), consumed=((message.id, 2),), settled=end))

        assert [one.seq for one in await straight.history(flow)] == [1, 2]
        assert await straight.inbox(flow) == []
        assert await status_of(straight, flow) is TaskStatus.COMPLETED
    assert number > 15


async def test_a_group_commit_that_waits_for_a_row_and_is_ended_there_is_done_once(
    log: PostgresExecutionLog, straight: PostgresExecutionLog, own_url: str, operator: Operator
) -> None:
    await register(log)
    lease = await claimed_flow(log)
    holder = await asyncpg.connect(own_url, server_settings={"application_name": "holder"})
    for number, settled in ((1, None), (2, Settled(TaskStatus.COMPLETED, "1"))):
        await holder.execute("BEGIN")
        await holder.execute("SELECT 1 FROM ergon.flows WHERE id = 'f1' FOR UPDATE")
        committing = asyncio.create_task(commit(log, Commit("f1", lease, (event(number),), settled=settled)))

        await until(lambda: _ends_one_that_waits(operator))

        await holder.execute("COMMIT")
        await committing
        assert [one.seq for one in await straight.history("f1")] == list(range(1, number + 1))
    assert await status_of(straight, "f1") is TaskStatus.COMPLETED
    await holder.close()


async def test_a_warning_of_a_trigger_is_no_lost_answer(
    log: PostgresExecutionLog, line: Line, own_url: str
) -> None:
    """The warning that tells of a wait for a standby that was cut short has no class of its own either."""
    await postgres.execute(
        own_url,
        "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'seen'; RETURN NEW; END $$",
        "CREATE TRIGGER warn BEFORE INSERT ON ergon.events FOR EACH ROW EXECUTE FUNCTION warn()",
        "CREATE TRIGGER warn BEFORE INSERT ON ergon.inbox FOR EACH ROW EXECUTE FUNCTION warn()",
    )
    await register(log)
    lease = await claimed_flow(log)

    await commit(log, Commit("f1", lease, (event(1),)))
    await log.send(signal("f1"))

    assert any("INSERT INTO inbox" in sql for sql in line.saw)
    assert not any(landed.ASK in sql for sql in line.saw), "nobody had to ask"
    assert len(await log.history("f1")) == 1


async def _ends_one_that_waits(operator: Operator) -> bool:
    return await operator.end_all("AND wait_event_type = 'Lock'") == 1
