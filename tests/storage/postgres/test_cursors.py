"""A reader of arrivals misses nothing, and is told twice only what it may not have heard."""

from __future__ import annotations

import asyncpg

from ergon import PostgresExecutionLog
from ergon.core.commit import Received
from ergon.storage.postgres.cursors import Cursors
from ergon.testing.conformance.kit import claimed_flow, register, signal


def message(id: int) -> Received:
    return Received(id, "f", "signal", "go", None, 0.0)


async def test_while_any_transaction_is_under_way_each_message_is_told_once(url):
    async with PostgresExecutionLog(url, require="D1") as log:
        await register(log)
        await claimed_flow(log)
        slow = await asyncpg.connect(url)
        await slow.execute("BEGIN; SELECT pg_current_xact_id()")
        seen, cursor = [], 0
        for n in range(4):
            await log.send(signal("f1", payload=str(n)))
            cursor, found = await log.arrivals("w1", cursor)
            seen += [one.payload for one in found]
            assert await log.arrivals("w1", cursor) == (cursor, [])
        await slow.execute("COMMIT")
        await slow.close()

        assert await log.arrivals("w1", cursor) == (cursor, [])
        assert seen == ["0", "1", "2", "3"]


def test_an_answer_that_got_lost_is_told_again():
    cursors = Cursors()
    first, _ = cursors.answer(0, 0, 10, [message(1)], frozenset({1}))
    cursors.answer(first, 0, 10, [message(1), message(2)], frozenset({1, 2}))  # nobody got it

    _, again = cursors.answer(first, 0, 10, [message(1), message(2)], frozenset({1, 2}))

    assert again == [message(2)]


def test_after_a_cut_everything_is_read_from_the_start():
    cursors = Cursors()
    cursor, _ = cursors.answer(0, 0, 10, [message(1)], frozenset({1}))

    assert cursors.place(cursor, 0) == 10
    assert cursors.place(cursor, 1) == 0
    assert cursors.answer(cursor, 1, 5, [message(1)], frozenset())[1] == [message(1)]
