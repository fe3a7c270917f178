"""The connection is cut at the worst moments: nothing acknowledged is lost, nothing is done twice, nothing hangs."""

from __future__ import annotations

import asyncio

import pytest

from ergon import PostgresExecutionLog
from ergon.core.commit import Commit, Hint, Settled
from ergon.core.status import TaskStatus
from ergon.errors import LogBusy
from ergon.testing.conformance.kit import (
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    new_flow,
    register,
    signal,
    status_of,
    until,
)
from tests.servers.proxy import ANSWER, LATE, REQUEST
from tests.storage.postgres.conftest import database_of

LOST = [REQUEST, ANSWER]
NUMBER = "INSERT INTO landed AS l"
"""In the statement by which a transaction ends, or that is one."""
each_lost = pytest.mark.parametrize("what", LOST)


@each_lost
async def test_events_whose_connection_is_cut_are_there_once(log, straight, line, what):
    await register(log)
    lease = await claimed_flow(log)
    line.lose(what, "INSERT INTO events")

    await commit(log, Commit("f1", lease, (event(1),)))

    assert line.lost
    assert await straight.history("f1") == [event(1)]
    await commit(log, Commit("f1", lease, (event(2),)))


@each_lost
async def test_a_batch_whose_answer_is_lost_is_answered_one_by_one(log, straight, line, what):
    """Some of it may not stand, which nobody has told yet."""
    await register(log)
    leases = [await claimed_flow(log, f"f{n}") for n in range(6)]
    await straight.move("f3", TaskStatus.PAUSED)
    line.lose(what, "INSERT INTO events")

    errors = await commit_all(
        log, *(Commit(f"f{n}", lease, (event(1, payload=str(n)),)) for n, lease in enumerate(leases))
    )

    assert [type(error).__name__ for error in errors] == ["NoneType"] * 3 + ["LeaseLost"] + ["NoneType"] * 2
    for n in range(6):
        assert [one.payload for one in await straight.history(f"f{n}")] == ([] if n == 3 else [str(n)])


@each_lost
@pytest.mark.parametrize(
    "settled",
    [Settled(TaskStatus.COMPLETED, "1"), Settled(TaskStatus.SUSPENDED), Settled(TaskStatus.PENDING)],
)
async def test_an_end_whose_answer_is_lost_has_happened_once(log, straight, line, what, settled):
    """It has no event by which it could be recognised."""
    await register(log)
    lease = await claimed_flow(log)
    line.lose(what, NUMBER)

    await commit(log, Commit("f1", lease, settled=settled))

    assert len(line.lost) == 1
    assert await status_of(straight, "f1") is settled.status


@each_lost
async def test_a_message_without_a_key_whose_answer_is_lost_arrives_once(log, straight, line, what):
    await log.create(new_flow("f1"))
    line.lose(what, NUMBER)

    await log.send(signal("f1"))

    assert line.lost
    assert len(await straight.inbox("f1")) == 1


@each_lost
async def test_a_flow_whose_answer_is_lost_was_created_by_this_very_call(log, straight, line, what):
    line.lose(what, NUMBER)

    assert await log.create(new_flow("f1")) is None

    assert line.lost
    assert await status_of(straight, "f1") is TaskStatus.PENDING


@each_lost
async def test_a_claim_whose_answer_is_lost_brings_its_flows_once(log, straight, line, what):
    await register(log)
    await log.create(new_flow("f1"))
    await log.find("f1")
    line.lose(what, NUMBER)

    claimed = await claim_one(log, "f1")

    assert line.lost
    assert claimed.lease.claims == 1
    assert claimed.flow.claims_stalled == 0
    await commit(log, Commit("f1", claimed.lease, (event(1),)))
    assert await straight.lost("w1", [("f1", claimed.lease.epoch)]) == []


@each_lost
async def test_an_operators_act_whose_answer_is_lost_is_told_as_it_was_done(log, straight, line, what):
    await log.create(new_flow("f1"))
    await log.find("f1")
    line.lose(what, NUMBER)

    assert (await log.move("f1", TaskStatus.CANCELLED, reason="enough")).status is TaskStatus.CANCELLED

    assert line.lost
    line.lose(what, NUMBER)
    assert await log.delete("f1") is True, "a second try would find nothing and say so"
    assert await straight.find("f1") is None


@pytest.mark.parametrize("message", [None, signal("f1")])
async def test_what_reaches_the_server_after_its_connection_was_cut_happens_once(
    log, straight, line, message
):
    """Whoever asked what became of it has closed its number: what comes then fails, and it was done anew."""
    await register(log)
    lease = await claimed_flow(log)
    line.lose(LATE, NUMBER)
    end = Commit("f1", lease, settled=Settled(TaskStatus.COMPLETED, "1"))
    acting = asyncio.create_task(log.send(message) if message is not None else commit(log, end))
    await until(lambda: line.lost)
    await until(lambda: any(_ASKS in sql for sql in line.saw))

    line.deliver_late()
    await acting

    flow = await straight.find("f1")
    if message is None:
        assert (flow.status, flow.output) == (TaskStatus.COMPLETED, "1")
    else:
        assert len(await straight.inbox("f1")) == 1


_ASKS = "CASE WHEN l.batch = $2"
"""In the statement that asks for a transaction's number."""


async def test_cuts_at_any_statement_lose_and_repeat_nothing(log, straight, line):
    """Whatever statement the line breaks at, by whatever side, all acts succeed and have happened once."""
    await register(log)
    for number, what in enumerate((REQUEST, ANSWER) * 12):
        before, sent = len(line.lost), len(line.saw)
        line.lose(what, *([""] if number % 3 else ["", ""]))
        flow = f"f{number}"
        assert await log.create(new_flow(flow)) is None
        lease = (await claim_one(log, flow)).lease
        for n in range(1, number % 12 + 2):
            await commit(log, Commit(flow, lease, (event(n),)))
            if n == number % 12:
                line.lose(what, "")
        await log.send(signal(flow))
        (message,) = await log.inbox(flow)
        last = event(number % 12 + 2)
        end = Commit(
            flow,
            lease,
            (last,),
            consumed=((message.id, last.seq),),
            settled=Settled(TaskStatus.COMPLETED, "1"),
        )
        await commit(log, end)
        assert len(line.lost) > before
        assert len(line.saw) > sent
        assert [one.seq for one in await straight.history(flow)] == list(range(1, number % 12 + 3))
        assert await status_of(straight, flow) is TaskStatus.COMPLETED


@each_lost
async def test_tables_whose_making_is_not_answered_are_made_once(own_url, line, what):
    """Where the answer is looked for is a table too, which may not be there."""
    line.lose(what, "; COMMIT")

    async with PostgresExecutionLog(line.url(database_of(own_url)), require="D1") as log:
        assert await log.create(new_flow("f1")) is None

    assert len(line.lost) == 1


async def test_tables_are_made_at_whichever_statement_the_line_is_cut(own_url, line):
    seen, cut_at = (
        [0],
        2,
    )  # the first asks who the server is: a server that cannot be reached then is told at once

    def cut(sql: str) -> None:
        seen[0] += 1
        if seen[0] == cut_at:
            line.cut()

    line.on_statement = cut
    while True:
        seen[0] = 0
        url = f"{line.url(database_of(own_url))}&schema=cut_at_{cut_at}"
        async with PostgresExecutionLog(url, require="D1") as log:
            statements = seen[0]
            assert await log.create(new_flow("f1")) is None
        if cut_at >= statements:
            break
        cut_at += 1
    assert cut_at > 8


async def test_a_line_that_goes_silent_is_given_up_and_dialled_again(own_url, line):
    async with PostgresExecutionLog(
        line.url(database_of(own_url)), require="D1", busy_timeout_seconds=3
    ) as log:
        await register(log)
        lease = await claimed_flow(log)
        line.freeze()
        waiting = asyncio.create_task(commit(log, Commit("f1", lease, (event(1),))))
        with pytest.raises(LogBusy):
            await waiting
        line.thaw()

        await commit(log, Commit("f1", lease, (event(1),)))

        assert len(await log.history("f1")) == 1


async def test_while_the_server_is_away_writes_wait_and_then_say_that_it_is(own_url, line):
    async with PostgresExecutionLog(
        line.url(database_of(own_url)), require="D1", busy_timeout_seconds=3
    ) as log:
        await log.create(new_flow("f1"))
        line.is_down = True
        line.cut()
        with pytest.raises(LogBusy, match="could not be reached"):
            await log.create(new_flow("f2"))
        with pytest.raises(LogBusy, match="could not be reached"):
            await log.find("f1")
        line.is_down = False

        assert await log.create(new_flow("f2")) is None


async def test_a_log_whose_server_is_away_can_be_closed(log, line):
    await log.create(new_flow("f1"))
    line.is_down = True
    line.cut()
    sending = asyncio.create_task(log.send(signal("f1")))
    await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await log.close()

    with pytest.raises(LogBusy):
        await sending


async def test_hints_come_again_after_their_connection_was_cut(log, straight, line):
    heard: list[Hint] = []
    log.subscribe(heard.append)
    await log.create(new_flow("f1"))
    line.cut()
    await until(lambda: any(hint.elsewhere for hint in heard))  # nobody knows what was missed
    await until(lambda: sum("LISTEN" in sql for sql in line.saw) >= 2)
    heard.clear()

    async def is_heard():
        await straight.create(new_flow())
        return any(hint.elsewhere for hint in heard)

    await until(is_heard)


async def test_messages_that_came_while_the_line_was_cut_arrive(log, straight, line):
    await register(log)
    await claimed_flow(log)
    await log.send(signal("f1", payload="1"))
    cursor, (first,) = await log.arrivals("w1", 0)
    line.cut()
    await straight.send(signal("f1", payload="2"))

    _, messages = await log.arrivals("w1", cursor)

    assert [one.payload for one in messages if one.id > first.id] == ["2"]
