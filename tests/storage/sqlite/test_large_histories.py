"""Rows that fit one by one and are too much for one text: nothing of what was acknowledged becomes unreadable.

SQLite makes no text longer than its limit, 1e9 bytes. The tests lower the limit of the connection that reads.
"""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3

import pytest

from ergon import Scheduler, SqliteExecutionLog, Worker, WorkerOptions, flow, step, wait_signal
from ergon.core.commit import Commit, FlowFilter
from ergon.core.status import TaskStatus
from ergon.errors import LogDamaged
from ergon.storage.sqlite import catalog, joined, rows
from tests.storage.kit import claim, claimed_flow, commit, event, new_flow, register, settle, signal, until

LIMIT = 100_000
"""In place of SQLite's 1e9: no value is longer, but a dozen of them are."""
EVENTS = 40


@pytest.fixture(params=["file", "memory"])
async def log(request, file):
    async with SqliteExecutionLog(file if request.param == "file" else ":memory:") as opened:
        await opened.connect()
        yield opened


async def lower(log, limit=LIMIT):
    await log._session.read(lambda connection: connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limit))


def payloads(count=EVENTS):
    """Long and short in turn, some full of quotes, which are written twice as long on the way out, some not ASCII."""
    rng = random.Random(7)
    texts = [rng.choice(["x" * 30_000, "", '"' * 15_000, "é€😀" * 3_000, "y" * 95_000]) for _ in range(count)]
    return [json.dumps(text, ensure_ascii=False) for text in texts]


async def large_flow(log, flow_id="large", *, messages=0, events=EVENTS):
    """A suspended flow with a history; return it. A message wakes it."""
    lease = await claimed_flow(log, flow_id)
    history = [event(seq, payload) for seq, payload in enumerate(payloads(events), 1)]
    await commit(log, Commit(flow_id, lease, tuple(history)))
    await settle(log, flow_id, lease, TaskStatus.SUSPENDED)
    for number, payload in enumerate(payloads(messages)):
        await log.send(signal(flow_id, payload=payload, key=str(number)))
    return history


async def test_a_history_too_long_for_one_text_is_claimed_whole_and_so_are_the_flows_beside_it(log):
    await register(log)
    history = await large_flow(log, messages=1)
    short = await large_flow(log, "short", messages=1, events=2)
    await log.create(new_flow("new"))
    await lower(log)

    claimed = {one.flow.id: one for one in await claim(log, limit=10)}

    assert claimed.keys() == {"large", "short", "new"}
    assert claimed["large"].events == history
    assert claimed["short"].events == short
    assert claimed["new"].events == []


async def test_unread_messages_too_long_for_one_text_are_all_claimed(log):
    await register(log)
    await large_flow(log, messages=EVENTS, events=1)
    await lower(log)

    (claimed,) = await claim(log)

    assert [message.payload for message in claimed.inbox] == payloads()
    assert claimed.inbox_seen == claimed.inbox[-1].id


async def test_messages_too_long_for_one_text_all_arrive(log):
    await register(log)
    await claimed_flow(log, "f")
    await log.send(signal("f", "first"))
    cursor, _ = await log.arrivals("w1", 0)
    for payload in payloads():
        await log.send(signal("f", "more", payload))
    await lower(log)

    _, from_start = await log.arrivals("w1", 0)
    _, later = await log.arrivals("w1", cursor)

    assert [message.name for message in from_start] == ["first"] + ["more"] * EVENTS
    assert [message.payload for message in later] == payloads()


@pytest.mark.parametrize("after", [0, 7, EVENTS])
@pytest.mark.parametrize("limit", [None, 0, 1, 17, EVENTS + 1])
async def test_whoever_asks_for_a_part_of_such_a_history_gets_that_part(log, after, limit):
    await register(log)
    history = await large_flow(log, messages=3)
    await lower(log)

    part = await log.history("large", after=after, limit=limit)

    assert part == history[after:][:limit]
    assert [message.payload for message in await log.inbox("large")] == payloads(3)


async def test_flows_too_large_for_one_text_are_listed_claimed_and_awaited(log):
    await register(log)
    texts = payloads()
    for number, text in enumerate(texts):
        await log.create(new_flow(f"f{number}", input=text))
    await lower(log)

    claimed = await claim(log, limit=EVENTS)
    for one in claimed:
        await settle(log, one.flow.id, one.lease, output="1")
    listed, _ = await log.list(FlowFilter(), limit=EVENTS)
    ended, _ = await log.ended_or_parked([f"f{number}" for number in range(EVENTS)])

    assert [one.flow.input for one in claimed] == texts
    assert [one.input for one in listed] == texts[::-1]
    assert [one.input for one in ended] == texts


async def test_a_damaged_row_in_such_a_history_parks_its_flow_and_no_other(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        await large_flow(log, "bad", messages=1)
        history = await large_flow(log, "good", messages=1)
        with sqlite3.connect(file) as other:
            other.execute(
                "UPDATE events SET payload = CAST(x'22ff22' AS TEXT) WHERE seq = 30 AND flow_num = "
                "(SELECT num FROM flows WHERE id = 'bad')"
            )
        other.close()
        await lower(log)

        (claimed,) = await claim(log, limit=10)

        assert (claimed.flow.id, claimed.events) == ("good", history)
        parked = await log.find("bad")
        assert parked is not None
        assert parked.status is TaskStatus.PARKED
        with pytest.raises(LogDamaged, match="'bad'"):
            await log.history("bad")


async def test_no_text_of_more_than_one_row_is_longer_than_the_bound(log, monkeypatch):
    await register(log)
    history = await large_flow(log, messages=EVENTS)
    monkeypatch.setattr(joined, "BYTES_MAX", 50_000)
    read: list[tuple[int, int]] = []

    def noting(decode, count):
        def noted(text):
            found = decode(text)
            read.append((len((text or "").encode()), count(found)))
            return found

        return noted

    monkeypatch.setattr(
        rows, "events_by_flow", noting(rows.events_by_flow, lambda found: sum(map(len, found.values())))
    )
    monkeypatch.setattr(rows, "messages", noting(rows.messages, len))

    (claimed,) = await claim(log)

    assert claimed.events == history
    assert len(claimed.inbox) == EVENTS
    assert sum(count for _, count in read) == 2 * EVENTS
    assert all(size <= 50_000 or count == 1 for size, count in read)
    assert any(count > 1 for _, count in read)


async def test_many_small_rows_take_few_pages(log, monkeypatch):
    await register(log)
    lease = await claimed_flow(log, "f")
    await commit(log, Commit("f", lease, tuple(event(seq, '"' + "x" * 100 + '"') for seq in range(1, 5_001))))
    monkeypatch.setattr(joined, "BYTES_MAX", 400_000)
    statements: list[str] = []
    await log._session.read(lambda connection: connection.set_trace_callback(statements.append))

    history = await log.history("f")

    assert [one.seq for one in history] == list(range(1, 5_001))
    assert sum("group_concat" in sql for sql in statements) <= 12


async def test_pages_are_of_one_moment_and_leave_no_transaction_behind(file):
    async with SqliteExecutionLog(file) as log:
        await register(log)
        await large_flow(log, messages=EVENTS)
        await lower(log)

        def read(connection):
            with sqlite3.connect(file) as other:

                def decode(text):
                    other.execute("UPDATE inbox SET consumed_seq = 1")
                    other.commit()
                    return rows.messages(text)

                sql = catalog._SQL["inbox"]
                found = joined.read(connection, sql, decode, catalog._ID, flow="large")
            other.close()
            return found, connection.in_transaction, catalog.unread(connection, "large")

        found, in_transaction, later = await log._session.read(read)

    assert [message.payload for message in found] == payloads()
    assert not in_transaction
    assert later == []


async def test_the_limit_of_a_connection_is_what_it_was_after_each_read(log):
    await register(log)
    history = await large_flow(log, messages=3)

    def limit(connection):
        return connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)

    before = await log._session.read(limit), await log._session.on_writer(limit)
    await claim(log)
    await log.create(new_flow("new"))
    await claim(log)
    assert await log.history("large") == history
    await log.list(FlowFilter())

    assert (await log._session.read(limit), await log._session.on_writer(limit)) == before
    assert before[0] > joined.BYTES_MAX


OPTIONS = WorkerOptions(poll_seconds=0.05, evict_after_seconds=0.05)


async def waits_for_signal(handle):
    record = await handle.record()
    return record.status is TaskStatus.SUSPENDED and "go" in record.reason


@step
async def long_text(number: int) -> str:
    return chr(97 + number) * 30_000


@flow
async def collects(count: int) -> int:
    total = 0
    for number in range(count):
        total += len(await long_text(number))
    return total + await wait_signal("go", int)


@flow
async def answers(number: int) -> str:
    return await long_text(number)


@flow
async def asks(count: int) -> int:
    texts = await asyncio.gather(*(answers(number) for number in range(count)))
    return sum(map(len, texts)) + await wait_signal("go", int)


@pytest.mark.parametrize("waits", [collects, asks])
async def test_a_flow_with_more_results_than_fit_one_text_goes_on_after_a_restart(file, waits):
    async with SqliteExecutionLog(file) as log, Worker(log, flows=[waits, answers], options=OPTIONS):
        handle = await Scheduler(log).schedule(waits.bind(20), id="f")
        await until(lambda: waits_for_signal(handle))

    async with SqliteExecutionLog(file) as log:
        await lower(log)
        handle = Scheduler(log).handle("f", int)
        await handle.signal("go", 0)
        async with Worker(log, flows=[waits, answers], options=OPTIONS):
            assert await handle.result(20) == 20 * 30_000
