"""Rows that somebody or something damaged."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from ergon.core.commit import Commit, FlowFilter
from ergon.core.status import TaskStatus
from ergon.errors import LogDamaged
from ergon.scheduler.scheduler import Scheduler
from ergon.scheduler.why import why
from ergon.storage.sqlite import SqliteExecutionLog
from ergon.storage.sqlite.damage import PASS_OVER_SECONDS
from ergon.storage.sqlite.errors import translate
from tests.storage.kit import (
    SettableClock,
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    new_flow,
    register,
    settle,
    signal,
    status_of,
)


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr("ergon.storage.sqlite.damage._told", {})


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


TEXT_THAT_IS_NONE = "CAST(x'22736563726574ff22' AS TEXT)"


def without_checks(file, *statements):
    """Write what Ergon never would, as a broken disk or a careless hand might."""
    connection = sqlite3.connect(file, isolation_level=None)
    (schema,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'flows'").fetchone()
    change = "UPDATE sqlite_schema SET sql = ? WHERE name = 'flows'"
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(change, (schema.replace(") STRICT", ")"),))
    connection.close()
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints=ON")
    for statement in statements:
        connection.execute(statement)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(change, (schema,))
    connection.close()


DAMAGES = pytest.mark.parametrize(
    "change",
    [
        f"input = {TEXT_THAT_IS_NONE}",
        f"name = {TEXT_THAT_IS_NONE}",
        "input = x'00ff'",
        "priority = 'high'",
        "created_at = 'yesterday'",
        "status = 'sleeping'",
        f"status = {TEXT_THAT_IS_NONE}",
        "status = x'00'",
        "wake_at = 'soon'",
        "parent_id = x'00ff'",  # SQLite from 3.45 on reads x'00' as a null
    ],
)


@DAMAGES
async def test_a_damaged_flow_names_itself_and_other_flows_go_on(file, change, caplog):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        for flow_id in ("good1", "bad", "good2"):
            await log.create(new_flow(flow_id))
    without_checks(file, f"UPDATE flows SET {change} WHERE id = 'bad'")

    async with SqliteExecutionLog(file) as log:
        if change.startswith(("wake_at", "created_at")):  # a time that is none reads as another
            assert await log.next_wake(["order"]) is None
        else:
            for act in (
                log.find("bad"),
                log.move("bad", TaskStatus.PAUSED),
                log.create(new_flow("bad")),
                log.delete("bad"),
                why(log, "bad"),
            ):
                with pytest.raises(LogDamaged, match=r"flow 'bad' is damaged.*mend") as caught:
                    await act
                assert caught.value.flow_id == "bad"
                assert "secret" not in str(caught.value)
            listed, _ = await log.list(FlowFilter())
            assert [flow.id for flow in listed] == ["good2", "good1"]
            assert any("'bad'" in record.getMessage() for record in caplog.records)
        await log.count(FlowFilter())
        moved, *_ = await asyncio.gather(
            log.move("good1", TaskStatus.PAUSED), log.move("bad", TaskStatus.PAUSED), return_exceptions=True
        )
        assert not isinstance(moved, BaseException)
        await log.move("good1", TaskStatus.PENDING)
        claimed = [*await claim(log, limit=1), *await claim(log, limit=1), *await claim(log, limit=1)]
        assert {one.flow.id for one in claimed} >= {"good1", "good2"}


@DAMAGES
async def test_a_page_of_flows_goes_on_behind_damaged_ones(file, change):
    async with SqliteExecutionLog(file) as log:
        for number in range(6):
            await log.create(new_flow(f"f{number}"))
    without_checks(file, f"UPDATE flows SET {change} WHERE id IN ('f4', 'f3')")

    async with SqliteExecutionLog(file) as log:
        listed, after = [], None
        for _ in range(3):
            page, after = await log.list(FlowFilter(), limit=2, after=after)
            listed += [flow.id for flow in page]

    assert after is None
    assert [flow_id for flow_id in listed if flow_id not in ("f3", "f4")] == ["f5", "f2", "f1", "f0"]


async def test_claims_pass_over_a_flow_whose_id_is_no_text(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        await log.create(new_flow("bad"))
        await log.create(new_flow("good"))
        damage(file, f"UPDATE flows SET id = {TEXT_THAT_IS_NONE} WHERE id = 'bad'")

        claimed = await claim(log, limit=10)
        again = await claim(log, limit=10)

    assert [one.flow.id for one in claimed] == ["good"]
    assert again == []


async def test_a_due_flow_that_cannot_be_written_keeps_no_other_from_becoming_ready(file):
    clock = SettableClock()
    async with SqliteExecutionLog(file, clock=clock) as log:
        await register(log)
        await log.create(new_flow("bad", delay_seconds=1.0))
        await log.create(new_flow("good", delay_seconds=2.0))
    without_checks(file, "UPDATE flows SET input = x'00' WHERE id = 'bad'")

    async with SqliteExecutionLog(file, clock=clock) as log:
        clock.advance(5)
        claimed = await claim(log, limit=10)

    assert [one.flow.id for one in claimed] == ["good"]


async def test_a_worker_keeps_its_lease_and_gives_back_the_others_when_one_of_its_flows_is_damaged(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        await claimed_flow(log, "bad")
        await claimed_flow(log, "good")
    without_checks(file, "UPDATE flows SET input = x'00' WHERE id = 'bad'")

    async with SqliteExecutionLog(file) as log:
        await log.renew("w1", lease_seconds=30.0, doing={"bad": "[]", "good": "[]"})
        assert await log.retire("w1") == 1
        assert await status_of(log, "good") is TaskStatus.PENDING


async def test_a_row_that_was_mended_is_claimed_after_a_while(file):
    clock = SettableClock()
    async with SqliteExecutionLog(file, clock=clock) as log:
        await register(log, lease_seconds=1_000.0)
        await log.create(new_flow("bad"))
    without_checks(file, "UPDATE flows SET input = x'00'")

    async with SqliteExecutionLog(file, clock=clock) as log:
        assert await claim(log) == []
        without_checks(file, "UPDATE flows SET input = '{}'")
        clock.advance(PASS_OVER_SECONDS)
        claimed = await claim(log)

    assert [one.flow.id for one in claimed] == ["bad"]


async def test_a_damaged_message_does_not_keep_the_others_from_arriving(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        await claimed_flow(log, "f1")
        await claimed_flow(log, "f2")
        await log.send(signal("f1", "first"))
        cursor, _ = await log.arrivals("w1", 0)
        await log.send(signal("f1", "bad"))
        await log.send(signal("f2", "good"))
        damage(file, f"UPDATE inbox SET payload = {TEXT_THAT_IS_NONE} WHERE name = 'bad'")

        from_start = await log.arrivals("w1", 0)
        later = await log.arrivals("w1", cursor)

    assert [message.name for message in from_start[1]] == ["first", "good"]
    assert [message.name for message in later[1]] == ["good"]


async def test_whoever_waits_for_a_damaged_flow_is_told_and_the_others_get_their_results(file):
    async with SqliteExecutionLog(file) as log, SqliteExecutionLog(file) as elsewhere:
        await register(log)
        leases = {flow_id: await claimed_flow(log, flow_id) for flow_id in ("bad", "good")}
        waiting = {
            flow_id: asyncio.create_task(Scheduler(elsewhere).handle(flow_id).result(20))
            for flow_id in leases
        }
        await asyncio.sleep(0)
        damage(file, f"UPDATE flows SET input = {TEXT_THAT_IS_NONE} WHERE id = 'bad'")
        for flow_id, lease in leases.items():
            await settle(log, flow_id, lease, output="1")

        assert await waiting["good"] == 1
        with pytest.raises(LogDamaged, match="'bad'"):
            await waiting["bad"]


async def test_a_damaged_relative_keeps_no_flow_from_ending(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        lease = await claimed_flow(log, "f")
        await log.create(new_flow("above"))
        await settle(log, "above", (await claim_one(log, "above")).lease, TaskStatus.SUSPENDED)
        for number, kind in enumerate(["bad", "good"]):
            child = new_flow(kind, parent_id="f", parent_op=f"0:{number}")
            await log.create(child)
            await settle(log, kind, (await claim_one(log, kind)).lease, TaskStatus.SUSPENDED)
    without_checks(
        file,
        "UPDATE flows SET parent_id = 'above', parent_op = '0:1' WHERE id = 'f'",
        "UPDATE flows SET input = x'00' WHERE id IN ('above', 'bad')",
    )

    async with SqliteExecutionLog(file) as log:
        await settle(log, "f", lease, output="1")

        assert await status_of(log, "f") is TaskStatus.COMPLETED
        assert await status_of(log, "good") is TaskStatus.PENDING
        assert [message.kind for message in await log.inbox("good")] == ["cancel"]
