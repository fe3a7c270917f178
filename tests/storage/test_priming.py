"""The statements of a first flow are prepared ahead, and none of them runs by that."""

import sqlite3
from pathlib import Path

import pytest

from ergon import SqliteExecutionLog
from ergon.storage.sqlite.priming import first_statements, prepare


@pytest.mark.parametrize("number", range(len(first_statements())))
async def test_preparing_a_statement_does_not_run_it(tmp_path: Path, number: int) -> None:
    statement = first_statements()[number]
    async with SqliteExecutionLog(tmp_path / "flows.db"):
        pass
    connection = sqlite3.connect(tmp_path / "flows.db", isolation_level=None)
    ran: list[str] = []
    connection.set_trace_callback(ran.append)

    prepare(connection, statement)

    assert ran == []
    assert not connection.in_transaction
    with pytest.raises(sqlite3.ProgrammingError):  # else `prepare` would have run it
        connection.execute(statement)
    connection.close()


def test_a_statement_that_cannot_be_prepared_is_left_to_whoever_runs_it(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "no_log.db")

    for statement in first_statements():
        prepare(connection, statement)

    connection.close()
