"""What stands in front costs nothing: every hot statement seeks, in a log of a hundred flows and of a hundred thousand.

A plan is made once for each session, perhaps when the tables were empty, so empty tables must lead to the same one.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import asyncpg
import pytest

from ergon import PostgresExecutionLog
from ergon.core.commit import FlowFilter
from ergon.core.status import TaskStatus
from ergon.storage.postgres import catalog
from ergon.storage.postgres.connection import _SESSION
from ergon.storage.postgres.statements import statements

BY_ID: Final = {"flows_pkey", "events_pkey", "inbox_pkey", "inbox_unread", "inbox_keys"}
READY: Final = {"flows_ready"}
HOT: Final[dict[str, dict[str, set[str]]]] = {
    "appends.sql": {"one": BY_ID, "of_one_flow": BY_ID, "pack": BY_ID, "of_many": BY_ID},
    "usual.sql": {"usual": BY_ID | {"flows_children", "landed_pkey"}},
    "journal.sql": {
        "lock": BY_ID | {"flows_children"},
        "add": BY_ID,
        "consume": BY_ID,
        "return": BY_ID,
        "settle": BY_ID,
        "wake_if_unread": BY_ID,
        "find_events": BY_ID,
    },
    "inbox.sql": dict.fromkeys(
        ("insert", "forget_heard", "wake", "never_started", "cancel_unstarted", "wake_to_cancel", "find_key"), BY_ID
    ),
    "ended.sql": {
        "parents": BY_ID,
        "children": BY_ID | {"flows_children"},
        "tell_parents": BY_ID,
        "wake_parents": BY_ID,
    },
    "children.sql": {
        "who_has": BY_ID,
        "tell_again": BY_ID,
        "wake_parent": BY_ID,
        "theirs": BY_ID | {"flows_children"},
    },
    "intake.sql": {
        **dict.fromkeys(
            ("insert", "find", "move", "reschedule", "note_retry", "backs_off", "note_retry_now", "wake_to_retry"),
            BY_ID,
        ),
        "family": BY_ID | {"flows_children"},
        "leave_alone": {"flows_children"},
        **dict.fromkeys(("delete_events", "delete_inbox", "delete_flows"), BY_ID),
    },
    "claims.sql": {
        "promote": {"flows_due", "flows_pkey"},
        "promote_one": BY_ID,
        "take": READY,
        "take_one": BY_ID,
        "versions_ready": READY,
        "tags_ready": READY,
        "own": BY_ID,
        "load_events": BY_ID,
        "load_inbox": BY_ID,
    },
    "leases.sql": {
        "doing": BY_ID,
        "disown": BY_ID,
        "give_back": BY_ID,
        "lock_owned": {"flows_owned"},
        "release_flows": {"flows_owned"},
        "owned": {"flows_owned"},
    },
    "catalog.sql": {
        **dict.fromkeys(("find", "history", "inbox", "ended_or_parked", "absent", "lost"), BY_ID),
        "arrivals": BY_ID | {"inbox_arrivals"},
        "arrivals_from_start": {"flows_owned", "inbox_unread", "inbox_arrivals"},
        "next_wake": {"flows_due"},
    },
}  # fmt: skip
ALL: Final = [(file, name) for file, names in HOT.items() for name in names]
ON_ONE_FLOW: Final = [
    ("journal.sql", name) for name in ("add", "consume", "return", "settle", "wake_if_unread", "find_events")
] + [
    ("appends.sql", "one"),
    ("appends.sql", "of_one_flow"),
    ("appends.sql", "pack"),
    ("appends.sql", "of_many"),
    ("claims.sql", "load_events"),
    ("claims.sql", "load_inbox"),
    ("catalog.sql", "history"),
    ("catalog.sql", "inbox"),
    ("inbox.sql", "insert"),
]


@pytest.fixture(params=["empty", "large"])
async def connection(request: pytest.FixtureRequest, url: str) -> AsyncIterator[Any]:
    async with PostgresExecutionLog(url, require="D1"):
        pass
    opened = await asyncpg.connect(url, server_settings={**_SESSION, "search_path": "ergon"})
    if request.param == "large":
        await opened.execute(FILL)
    yield opened
    await opened.close()


FILL: Final = """
INSERT INTO flows (id, name, status, queue, priority, input, created_at, ready_at, wake_at, owner, parent_id, version)
SELECT 'f' || n, 'name' || n % 5, s, 'default', 0, '{}', n, n, CASE WHEN s = 'suspended' AND n % 2 = 0 THEN n END,
       CASE WHEN s = 'running' THEN 'w' || n % 3 END, CASE WHEN n % 10 = 0 THEN 'f' || n / 10 END, 'v' || n % 4
FROM generate_series(1, 40000) AS n,
     LATERAL (SELECT (ARRAY['pending', 'running', 'suspended', 'completed'])[n % 4 + 1] AS s) AS x;
INSERT INTO events (flow_id, seq, kind, op, name, digest, at, source, attempt)
SELECT 'f' || n, s, 'step_completed', '0:1', 'x', '', 0, '', 1
FROM generate_series(1, 20000) AS n, generate_series(1, 3) AS s;
INSERT INTO inbox (flow_id, kind, name, key, at, consumed_seq)
SELECT 'f' || n, 'signal', 'go', 'k' || s, 0, CASE WHEN s = 1 THEN 1 END
FROM generate_series(1, 20000) AS n, generate_series(1, 2) AS s;
ANALYZE;
"""


async def test_hot_statements_seek_in_their_indexes(connection: Any) -> None:
    found = {(file, name): scans(await plan_of(connection, statements(file)[name])) for file, name in ALL}

    assert {
        place: used - HOT[place[0]][place[1]]
        for place, used in found.items()
        if not used <= HOT[place[0]][place[1]]
    } == {}


async def test_a_page_of_a_list_is_read_in_order(connection: Any) -> None:
    """And of a status or a name by its own index, however rare it is among the newest flows."""
    indexes = {
        (None, None): {"flows_newest"},
        (TaskStatus.RUNNING, None): {"flows_status"},
        (None, "name1"): {"flows_name"},
        (TaskStatus.RUNNING, "name1"): {"flows_status", "flows_name"},
    }
    for (status, name), index in indexes.items():
        sql, _ = catalog.page_statement(FlowFilter(), status, name)
        plan = await plan_of(connection, sql)

        assert scans(plan) <= index, (status, name)
        assert "Sort" not in {node["Node Type"] for node in nodes(plan)}


@pytest.mark.parametrize("file, name", ON_ONE_FLOW)
def test_a_statement_of_the_hot_path_joins_rows_of_one_flow_only(file: str, name: str) -> None:
    """So that rows can be spread over machines by the flow's id: see the schema."""
    sql = re.sub(r"--.*", "", statements(file)[name])
    tables = re.findall(r"\b(?:FROM|JOIN|UPDATE|INTO)\s+(flows|events|inbox)\b(?:\s+AS\s+(\w+))?", sql)
    assert tables
    key = {"flows": "id", "events": "flow_id", "inbox": "flow_id"}

    for table, alias in tables:
        if f"INTO {table}" in sql:
            assert re.search(rf"INSERT INTO {table} \({key[table]}\b", sql)
            if not alias:
                continue
        column = rf"\b{alias}\.{key[table]}"
        assert re.search(rf"{column} = (\w+\.(id|flow_id)|\$1\b|ANY \(\$1)", sql) or re.search(
            rf"\w+\.(id|flow_id) = {column}\b", sql
        ), f"{table} {alias} is not joined by the flow's id"


async def plan_of(connection: Any, sql: str) -> dict[str, Any]:
    """The plan that a session of ours makes, once and for any values: its settings force a generic one."""
    values = max((int(number) for number in re.findall(r"\$(\d+)", sql)), default=0)
    given = f"({', '.join(['NULL'] * values)})" if values else ""
    await connection.execute(f"PREPARE hot AS {sql}")
    plan: dict[str, Any] = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE hot{given}"))[
        0
    ]["Plan"]
    await connection.execute("DEALLOCATE hot")
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def scans(plan: dict[str, Any]) -> set[str]:
    """The indexes, and the tables that are gone through from end to end."""
    found = set()
    for node in nodes(plan):
        if "Index Name" in node:
            found.add(node["Index Name"])
        elif node["Node Type"] == "Seq Scan":
            found.add(f"all of {node['Relation Name']}")
    return found
