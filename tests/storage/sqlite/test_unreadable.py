"""Rows that somebody or something damaged."""

from __future__ import annotations

import sqlite3

import pytest

from ergon.core.commit import Commit
from ergon.core.status import TaskStatus
from ergon.storage.sqlite import SqliteExecutionLog
from ergon.storage.sqlite.errors import translate
from tests.storage.kit import claim, claimed_flow, commit, event, new_flow, register, settle, signal


def damage(file, sql):
    with sqlite3.connect(file) as connection:
        connection.execute(sql)
    connection.close()


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE events SET payload = CAST(x'22736563726574ff22' AS TEXT)",
        "UPDATE inbox SET payload = CAST(x'22736563726574ff22' AS TEXT)",
    ],
)
async def test_a_flow_that_cannot_be_read_is_parked_and_the_others_of_its_claim_run(file, sql):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log, "bad")
        await commit(log, Commit("bad", lease, (event(1),)))
        await settle(log, "bad", lease, TaskStatus.SUSPENDED)
        await log.send(signal("bad"))
        await log.create(new_flow("good1"))
        await log.create(new_flow("good2"))
        damage(file, sql)

        claimed = await claim(log, limit=10)

        assert sorted(one.flow.id for one in claimed) == ["good1", "good2"]
        parked = await log.find("bad")
        assert parked is not None
        assert (parked.status, parked.owner) == (TaskStatus.PARKED, None)
        assert "cannot be read" in parked.reason
        assert "secret" not in parked.reason


async def test_an_error_of_the_log_never_quotes_what_a_row_holds():
    connection = sqlite3.connect(":memory:")
    with pytest.raises(sqlite3.OperationalError, match="secret") as caught:
        connection.execute("SELECT CAST(x'7365637265740aff' AS TEXT)").fetchone()
    connection.close()

    said = str(translate(caught.value, "here"))

    assert "secret" not in said
    assert "UTF-8" in said
