"""What a claim costs depends on what it takes, not on what stands in front of it."""

from __future__ import annotations

import json
import sqlite3

import pytest

from ergon.core.commit import ClaimRequest
from ergon.errors import LogDamaged
from ergon.storage.sqlite import claims
from ergon.storage.sqlite.statements import statements
from ergon.storage.sqlite.transaction import Transaction
from tests.storage.kit import claim, new_flow, register

IN_FRONT = 5_000
STEPS_MAX = 6_000
"""Instructions of SQLite's machine: a claim of one flow takes some 500, a look at each in front ten times as many as
there are."""

KINDS = {
    "queues": json.dumps(["default"]),
    "names": json.dumps(["order"]),
    "tags": json.dumps(["[]", '["gpu"]']),
    "versions": json.dumps([None, "1.0"]),
    "limit": 10,
    "damaged": "[]",
}


@pytest.mark.parametrize("statement", ["take", "take_any", "versions_ready", "tags_ready"])
async def test_a_claim_reads_ready_flows_only_by_seeking_in_their_index(log, file, statement):
    sql = statements("claims.sql")[statement]
    named = {key: value for key, value in KINDS.items() if f":{key}" in sql}

    with sqlite3.connect(file) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", named)]
    connection.close()

    of_flows = [
        line for line in plan if line.startswith(("SCAN", "SEARCH")) and line.split()[1] in ("i", "f")
    ]
    by_index = [line for line in of_flows if "flows_ready (queue=? AND name=? AND tags" in line]
    by_number = [line for line in of_flows if "INTEGER PRIMARY KEY (rowid=?)" in line]
    assert by_index
    assert sorted(of_flows) == sorted([*by_index, *by_number]), plan


@pytest.mark.parametrize("tags", [(), ("gpu",), ("gpu", "a", "b", "c", "d")], ids=["none", "one", "five"])
@pytest.mark.parametrize("versions", [None, ("1.0",), (">=1,<2",)], ids=["any", "exact", "range"])
async def test_flows_with_foreign_tags_in_front_cost_nothing(log, file, tags, versions):
    await register(log)
    put_in_front(file, lambda number: ["foreign"])
    await log.create(new_flow("mine", tags=tags[:1]))

    steps = steps_of_a_claim(
        log, file, ClaimRequest(worker="w1", names=("order",), tags=tags, versions=versions)
    )

    assert steps < STEPS_MAX
    assert [one.flow.id for one in await claim(log, tags=tags, versions=versions)] == ["mine"]


async def test_as_many_different_foreign_tags_as_there_are_machines_cost_nothing_either(log, file):
    await register(log)
    put_in_front(file, lambda number: [f"machine-{number}"])
    await log.create(new_flow("mine", tags=("gpu", "machine-7")))

    steps = steps_of_a_claim(
        log, file, ClaimRequest(worker="w1", names=("order",), tags=("gpu", "machine-7"), limit=1)
    )

    assert steps < STEPS_MAX


async def test_a_flow_whose_tags_are_damaged_is_nobodys_and_stands_in_nobodys_way(log, file):
    await register(log)
    await log.create(new_flow("broken", tags=("gpu",), priority=9))
    await log.create(new_flow("sound", tags=("gpu",)))
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE flows SET tags = '[\"gp' WHERE id = 'broken'")
    connection.close()

    claimed = await claim(log, tags=("gpu", "a", "b", "c", "d"))

    assert [one.flow.id for one in claimed] == ["sound"]
    with pytest.raises(LogDamaged, match="broken"):
        await log.find("broken")


def put_in_front(file, tags_of):
    """Flows that are ready, more urgent, and for others; a version lies in every range that is asked for."""
    rows = [
        (f"front-{number}", "1.5" if number % 2 else None, json.dumps(tags_of(number)))
        for number in range(IN_FRONT)
    ]
    with sqlite3.connect(file) as connection:
        connection.executemany(
            "INSERT INTO flows (id, name, status, queue, version, priority, input, created_at, ready_at, tags) "
            "VALUES (?, 'order', 'pending', 'default', ?, 9, '{}', 1.0, 1.0, ?)",
            rows,
        )
    connection.close()


def steps_of_a_claim(log, file, request):
    """How many instructions choosing takes, in tens; nothing is taken."""
    connection = sqlite3.connect(file)
    seen = 0

    def count():
        nonlocal seen
        seen += 10
        return 0

    connection.set_progress_handler(count, 10)
    try:
        assert claims._choose(Transaction(connection, log.now(), 0.0, {}), request)
    finally:
        connection.rollback()
        connection.close()
    return seen
