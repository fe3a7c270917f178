"""The way of a usual step into the log: one statement, one way to the server and back, whatever its texts hold."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit
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
