"""The way of a usual step into the log: one statement, one way to the server and back, whatever its texts hold."""

from __future__ import annotations

from typing import Any

import pytest

from ergon.core.commit import Commit
from ergon.errors import IllegalMove
from ergon.storage.postgres import writer
from ergon.testing.conformance.kit import claimed_flow, commit, commit_all, event, register
from tests.storage.postgres.conftest import acts

ODD = [
    ("", None),
    ("a\x1fb", "1"),
    ("a", "\x1e"),
    ("\x1e", "\x1f"),
    ("{a,b}", "null"),
    ('"a"', "NULL"),
    ("a\\", '"\u2028\\u0000"'),
    ("\n\t", ""),
]


async def test_a_step_takes_one_way_to_the_server_and_back(log, line):
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, (event(1),)))
    before = len(line.saw)

    await commit(log, Commit("f1", lease, (event(2),)))

    assert len(acts(line, before)) == 1, acts(line, before)


@pytest.mark.parametrize("count", [1, 2, 50])
async def test_results_of_one_flow_that_come_together_take_one_way(log, line, count):
    await register(log)
    lease = await claimed_flow(log)
    await commit(log, Commit("f1", lease, tuple(event(n) for n in range(1, count + 1))))
    before = len(line.saw)

    await commit(log, Commit("f1", lease, tuple(event(n) for n in range(count + 1, 2 * count + 1))))

    assert len(acts(line, before)) == 1, acts(line, before)
    assert [one.seq for one in await log.history("f1")] == list(range(1, 2 * count + 1))


@pytest.mark.parametrize("name, payload", ODD)
async def test_texts_are_kept_to_the_letter_however_they_travel(log, name, payload):
    """Alone, with others of their flow, and with those of other flows; also what stands between texts on the way."""
    await register(log)
    leases = [await claimed_flow(log, f"f{n}") for n in range(3)]
    odd, plain = event(1, payload)._replace(name=name), event(2, None)._replace(name="")

    await commit(log, Commit("f0", leases[0], (odd,)))
    await commit(log, Commit("f0", leases[0], (plain, odd._replace(seq=3))))
    errors = await commit_all(
        log, Commit("f1", leases[1], (odd, plain)), Commit("f2", leases[2], (plain._replace(seq=1),))
    )

    assert errors == [None, None]
    assert await log.history("f0") == [odd, plain, odd._replace(seq=3)]
    assert await log.history("f1") == [odd, plain]
    assert await log.history("f2") == [plain._replace(seq=1)]


@pytest.mark.parametrize("name, payload", ODD)
async def test_what_results_of_one_step_have_in_common_is_kept_to_the_letter_too(log, line, name, payload):
    """It travels once for all of them."""
    await register(log)
    lease = await claimed_flow(log)
    alike = [event(n, payload)._replace(name=name, source=name, digest=f"{n}") for n in (1, 2, 3)]
    before = len(line.saw)

    await commit(log, Commit("f1", lease, tuple(alike)))

    assert await log.history("f1") == alike
    apart = any("\x1f" in text or "\x1e" in text for text in [payload or ""])
    once = [sql for sql in acts(line, before) if "unnest" in sql and "$4::text, v.op, $5::text" in sql]
    assert len(once) == (0 if apart else 1), "such a payload goes another way"


@pytest.mark.parametrize("column", ["kind", "name", "source", "attempt"])
async def test_results_that_differ_in_one_thing_keep_it(log, column):
    await register(log)
    lease = await claimed_flow(log)
    others: dict[str, Any] = {"kind": "step_failed", "name": "refund", "source": "other.py:1", "attempt": 2}
    mixed = [event(1), event(2)._replace(**{column: others[column]}), event(3)]

    await commit(log, Commit("f1", lease, tuple(mixed)))

    assert await log.history("f1") == mixed


@pytest.mark.parametrize("numbers", [(1, 2, 3), (1, 2, 4), (1, 3, 2, 4), (5, 4, 3), (2, 2, 3)])
async def test_results_of_one_step_keep_their_numbers_whatever_these_are(log, numbers):
    """Usually each is one more than the one before, and then only the first and the last travel."""
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


async def test_large_values_that_are_ready_together_go_one_after_the_other(log, line, monkeypatch):
    """Together they might take longer than a server may be silent: cut off, and sent again whole, again and again."""
    monkeypatch.setattr(writer, "BATCH_LENGTH_MAX", 250)
    await register(log)
    leases = {f"f{n}": await claimed_flow(log, f"f{n}") for n in range(6)}
    large = event(1)._replace(payload='"' + 98 * "x" + '"')
    before = len(line.saw)

    told = await commit_all(log, *(Commit(flow_id, lease, (large,)) for flow_id, lease in leases.items()))

    assert told == [None] * 6
    assert len(acts(line, before)) == 3, "two at a time"
    assert [await log.history(flow_id) for flow_id in leases] == [[large]] * 6
