"""Results of one step that come together are one row, and nobody who reads a history can tell."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from ergon import Scheduler, Worker, flow, step
from ergon.core.commit import Commit, Hint
from ergon.core.status import TaskStatus
from ergon.errors import IllegalMove, LogDamaged
from ergon.storage.postgres import packs
from ergon.storage.postgres.statements import statements
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    commit_all,
    event,
    ids,
    record,
    register,
    settle,
)
from tests.storage.postgres.test_appends import ODD


def alike(first: int, last: int, **fields: Any) -> list[Any]:
    """Results of one step."""
    return [
        event(n, f"{n}")._replace(digest=f"d{n}", op=f"0:{n}", at=float(n), **fields)
        for n in range(first, last + 1)
    ]


async def rows_of(url: str) -> list[tuple[int, int | None]]:
    """First and last number of each row of table events."""
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch("SELECT seq, last FROM ergon.events ORDER BY flow_id, seq")
        return [tuple(row) for row in found]
    finally:
        await connection.close()


async def change(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.mark.parametrize("name, payload", ODD)
async def test_what_a_pack_holds_is_kept_to_the_letter(log, own_url, name, payload):
    await register(log)
    lease = await claimed_flow(log)
    events = [one._replace(name=name, source=name, payload=payload) for one in alike(1, 3)]

    await commit(log, Commit("f1", lease, tuple(events)))

    assert await log.history("f1") == events
    apart = any(mark in (payload or "") for mark in ("\x1f", "\x1e"))
    assert await rows_of(own_url) == ([(1, None), (2, None), (3, None)] if apart else [(1, 3)])


@pytest.mark.parametrize("column", ["kind", "name", "source", "attempt"])
async def test_results_that_differ_in_one_thing_keep_it(log, column):
    await register(log)
    lease = await claimed_flow(log)
    others: dict[str, Any] = {"kind": "step_failed", "name": "refund", "source": "other.py:1", "attempt": 2}
    mixed = [event(1), event(2)._replace(**{column: others[column]}), event(3)]

    await commit(log, Commit("f1", lease, tuple(mixed)))

    assert await log.history("f1") == mixed


async def test_failures_stay_rows(log, own_url):
    """Those that wait for their next attempt are looked for by their times."""
    await register(log)
    lease = await claimed_flow(log)

    await commit(log, Commit("f1", lease, tuple(alike(1, 3, kind="step_retried"))))

    assert await rows_of(own_url) == [(1, None), (2, None), (3, None)]


@pytest.mark.parametrize("numbers", [(1, 2, 3), (1, 2, 4), (1, 3, 2, 4), (5, 4, 3), (2, 2, 3)])
async def test_results_keep_their_numbers_whatever_these_are(log, numbers):
    """Usually each is one more than the one before, and then only the first and the last are kept."""
    await register(log)
    lease = await claimed_flow(log)
    events = tuple(event(number)._replace(digest=f"{place}") for place, number in enumerate(numbers))
    if len(set(numbers)) < len(numbers):
        with pytest.raises(IllegalMove):
            await commit(log, Commit("f1", lease, events))
    else:
        await commit(log, Commit("f1", lease, events))

    kept = sorted(events) if len(set(numbers)) == len(numbers) else []
    assert await log.history("f1") == kept


async def test_a_history_is_read_from_any_event_on_and_in_any_pages(log, own_url):
    await register(log)
    lease = await claimed_flow(log)
    every = [*alike(1, 1), *alike(2, 6), *alike(7, 7), *alike(8, 9), *alike(10, 14), *alike(15, 15)]
    for first, last in ((0, 1), (1, 6), (6, 7), (7, 9), (9, 14), (14, 15)):
        await commit(log, Commit("f1", lease, tuple(every[first:last])))
    assert await rows_of(own_url) == [(1, None), (2, 6), (7, None), (8, 9), (10, 14), (15, None)]

    for after in range(17):
        for limit in (None, *range(1, 17)):
            assert await log.history("f1", after=after, limit=limit) == every[after:][:limit], (after, limit)


@pytest.mark.parametrize(
    "after, limit, rows", [(0, 5, 1), (0, 6, 2), (3, 2, 1), (3, 3, 2), (5, 10, 2), (0, None, 4)]
)
async def test_a_page_reads_no_more_packs_than_it_shows(log, own_url, after, limit, rows):
    """A page of some events may else read as many packs, each of hundreds."""
    await register(log)
    lease = await claimed_flow(log)
    for first in (1, 6, 11, 16):
        await commit(log, Commit("f1", lease, tuple(alike(first, first + 4))))
    connection = await asyncpg.connect(own_url, server_settings={"search_path": "ergon"})

    found = await connection.fetch(statements("catalog.sql")["history"], "f1", after, limit)

    await connection.close()
    assert len(found) == rows


async def test_whoever_claims_a_flow_gets_its_events_and_not_its_packs(log, own_url):
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, tuple(alike(1, 5))))
    await log.retire("w1")
    await register(log, "w2")

    claimed = await claim_one(log, "f1", "w2")

    assert claimed.events == alike(1, 5)
    await commit(log, Commit("f1", claimed.lease, tuple(alike(6, 7))))
    assert await log.history("f1") == alike(1, 7)


async def test_a_flow_that_is_retried_goes_on_counting_after_its_last_pack(log):
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, tuple(alike(1, 5))))
    await settle(log, "f1", lease, TaskStatus.FAILED, output='"boom"')

    await log.move("f1", TaskStatus.PENDING)

    assert [(one.seq, one.kind) for one in await log.history("f1", after=5)] == [(6, "flow_retried")]


async def test_an_attempt_that_is_asked_for_at_once_is_counted_after_the_last_pack(log):
    await register(log)
    lease = await claimed_flow(log)
    later = log.now() + 3600
    backs_off = event(1)._replace(kind="step_retried", at=later)
    await commit(log, Commit("f1", lease, (backs_off,)))
    await commit(log, Commit("f1", lease, tuple(alike(2, 5))))

    await settle(log, "f1", lease, TaskStatus.SUSPENDED, wake_at=later)

    await log.retry_now("f1")

    assert [(one.seq, one.kind) for one in await log.history("f1", after=5)] == [(6, "retry_now")]


async def test_a_pack_that_is_sent_again_with_others_is_met(log, own_url):
    """Then it goes another way, as rows; the first of them stands where the pack does."""
    await register(log)
    leases = [await claimed_flow(log, f"f{n}") for n in (1, 2)]
    packed = Commit("f1", leases[0], tuple(alike(1, 5)))
    await commit(log, packed)

    told = await commit_all(log, packed, Commit("f2", leases[1], tuple(alike(1, 2))))

    assert told == [None, None], "written before, and written now"
    assert await log.history("f1") == alike(1, 5)
    assert await log.history("f2") == alike(1, 2)


async def test_rows_that_are_sent_again_alone_are_met(log):
    await register(log)
    leases = [await claimed_flow(log, f"f{n}") for n in (1, 2)]
    again = Commit("f1", leases[0], tuple(alike(1, 5)))
    assert await commit_all(log, again, Commit("f2", leases[1], tuple(alike(1, 2)))) == [None, None]

    await commit(log, again)

    assert await log.history("f1") == alike(1, 5)


async def test_another_event_in_the_place_of_a_pack_is_refused(log):
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, tuple(alike(1, 5))))

    with pytest.raises(IllegalMove, match="already has another event 1"):
        await commit(log, Commit("f1", lease, tuple(alike(1, 5, name="other"))))
    with pytest.raises(IllegalMove, match="already has another event 1"):
        await commit(log, Commit("f1", lease, (event(1, '"other"'),)))

    assert await log.history("f1") == alike(1, 5)


async def test_large_results_are_rows_of_their_own(log, own_url, monkeypatch):
    monkeypatch.setattr(packs, "LENGTH_MAX", 42)
    await register(log)
    lease = await claimed_flow(log)

    await commit(log, Commit("f1", lease, tuple(alike(1, 5))))
    await commit(log, Commit("f1", lease, tuple(alike(6, 12))))

    assert await rows_of(own_url) == [(1, 5), *((n, None) for n in range(6, 13))]
    assert await log.history("f1") == alike(1, 12)


@pytest.mark.parametrize(
    "damage",
    [
        "op = '0:1'",
        "digest = digest || E'\\x1f'",
        "payload = NULL",
        "ats = '{1,2}'",
        "last = 4",
        "last = NULL",
        "ats = NULL",
    ],
)
async def test_a_pack_that_does_not_hold_together_is_damage_that_names_its_flow(log, own_url, damage):
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, tuple(alike(1, 5))))
    await change(own_url, f"UPDATE ergon.events SET {damage}")

    with pytest.raises(
        LogDamaged, match="flow 'f1' is damaged: the row of its event 1 in table events"
    ) as caught:
        await log.history("f1")

    assert caught.value.flow_id == "f1"


async def test_a_damaged_pack_stops_only_its_own_flow(log, own_url):
    """It is parked: whoever claimed it again and again would never come to the others."""
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, tuple(alike(1, 5))))
    await settle(log, "f1", lease, TaskStatus.PENDING)
    sound = await claimed_flow(log, "f2")
    for events in (alike(1, 5), alike(6, 6), alike(7, 8)):
        await commit(log, Commit("f2", sound, tuple(events)))
    await settle(log, "f2", sound, TaskStatus.PENDING)
    await change(own_url, "UPDATE ergon.events SET op = '0:1' WHERE flow_id = 'f1'")
    heard: list[Hint] = []
    log.subscribe(heard.append)

    claimed = await claim(log, limit=5)

    assert ids(claimed) == ["f2"]
    assert claimed[0].events == alike(1, 8)
    assert any(hint.settled == {"f1": None} for hint in heard), "whoever waits for it hears of it"
    assert any(hint.ready for hint in heard), "whoever claims looks again at once: there may be more"
    parked = await record(log, "f1")
    assert (parked.status, parked.owner, parked.claims_stalled) == (TaskStatus.PARKED, None, 0)
    assert "the row of its event 1 in table events cannot be read" in parked.reason
    assert parked.reason.endswith("Mend the row; other flows are not concerned. Then resume the flow")
    mend = "UPDATE ergon.events SET op = E'0:1\\x1f0:2\\x1f0:3\\x1f0:4\\x1f0:5' WHERE flow_id = 'f1'"
    await change(own_url, mend)
    await log.move("f1", TaskStatus.PENDING)
    assert (await claim_one(log, "f1")).events == alike(1, 5)


async def test_a_commit_that_meets_a_damaged_pack_fails_alone(log, own_url):
    await register(log)
    leases = [await claimed_flow(log, f"f{n}") for n in (1, 2)]
    packed = Commit("f1", leases[0], tuple(alike(1, 5)))
    await commit(log, packed)
    await change(own_url, "UPDATE ergon.events SET op = '0:1'")

    damaged, sound = await commit_all(log, packed, Commit("f2", leases[1], tuple(alike(1, 2))))

    assert isinstance(damaged, LogDamaged)
    assert "the row of its event 1 in table events cannot be read; nothing was written" in str(damaged)
    assert damaged.flow_id == "f1"
    assert sound is None
    assert await log.history("f2") == alike(1, 2)


@pytest.mark.parametrize("numbers", [(3,), (3, 4), (5, 6), (2, 3, 4, 5, 6)])
async def test_numbers_that_a_pack_holds_already_are_damage_to_whoever_reads(log, numbers):
    """The table's key refuses them only at the start of a pack. No owner that counts its events writes such."""
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, tuple(alike(1, 5))))
    await commit(log, Commit("f1", lease, tuple(alike(numbers[0], numbers[-1]))))

    with pytest.raises(LogDamaged, match=f"its event {numbers[0]} .*its number is not above 5"):
        await log.history("f1")


@pytest.mark.parametrize("column", ["op", "digest", "payload"])
async def test_results_that_hold_what_stands_between_them_are_rows(log, own_url, column):
    await register(log)
    lease = await claimed_flow(log)
    events = alike(1, 3)
    events[1] = events[1]._replace(**{column: "a\x1fb"})

    await commit(log, Commit("f1", lease, tuple(events)))

    assert await log.history("f1") == events
    assert await rows_of(own_url) == [(1, None), (2, None), (3, None)]


async def test_people_who_look_with_sql_see_events(log, own_url):
    await register(log)
    lease = await claimed_flow(log)
    every = [*alike(1, 1), *alike(2, 5), event(6, None)._replace(kind="patched", op="")]
    every[3] = every[3]._replace(payload=None)
    for part in (every[:1], every[1:5], every[5:]):
        await commit(log, Commit("f1", lease, tuple(part)))
    connection = await asyncpg.connect(own_url)

    found = await connection.fetch(
        "SELECT seq, kind, op, name, payload, attempt, source, extract(epoch FROM happened)::float8 AS at "
        "FROM ergon.events_readable ORDER BY seq"
    )

    await connection.close()
    assert [tuple(row) for row in found] == [
        (one.seq, one.kind, one.op, one.name, one.payload, one.attempt, one.source, one.at) for one in every
    ]


@step
async def double(number: int) -> int:
    return 2 * number


@flow
async def fan_out(count: int) -> int:
    return sum(await asyncio.gather(*(double(n) for n in range(count))))


async def test_the_results_of_a_gather_are_a_few_rows(log, own_url):
    """One, unless it takes so long that a part of them is written while others run."""
    async with Worker(log, flows=[fan_out]):
        handle = await Scheduler(log).schedule(fan_out.bind(500), id="wide")
        assert await handle.result() == 249_500

    found = await rows_of(own_url)
    assert len(found) < 50
    assert sum((last or first) - first + 1 for first, last in found) == 500
