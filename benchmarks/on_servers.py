"""The same workloads on PostgreSQL and Redis, and how throughput grows with worker processes.

Floors are the bare drivers on one connection to the same server; DBOS runs on the same PostgreSQL server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from benchmarks import (
    bare_servers,
    w1_sequential,
    w2_concurrent,
    w3_fan_out,
    w4_replay,
    w5_queue,
    w6_waiting,
    w8_crash,
    w9_processes,
)
from benchmarks.model import DBOS, ERGON, FLOOR, POSTGRES, REDIS, Bar, Figures, Params, Row, Workload

TITLES = {POSTGRES: "PostgreSQL", REDIS: "Redis (Valkey)"}
DURABLE = {
    POSTGRES: "the server runs with fsync=on, synchronous_commit=on",
    REDIS: "the server runs with appendonly=yes, appendfsync=always",
}


def on(
    store: str,
    workload: Workload,
    *,
    floor: Callable[[Params], Figures] | None = None,
    rivals: Mapping[str, Params] | None = None,
    rows: tuple[Row, ...] | None = None,
    rounds: int = 3,
    notes: tuple[str, ...] = (),
) -> Workload:
    """The workload on a server. `rounds`: more where one takes a second, and milliseconds are compared."""
    return replace(
        workload,
        name=f"{workload.name}-{store.upper()}",
        title=f"{workload.title}, on {TITLES[store]}",
        sides={ERGON: workload.sides[ERGON], **({FLOOR: floor} if floor is not None else {})},
        rivals=rivals or {},
        rows=rows if rows is not None else workload.rows,
        rounds=rounds,
        notes=(DURABLE[store], *notes),
        store=store,
    )


def _unbarred(workload: Workload, *figures: str) -> tuple[Row, ...]:
    """The workload's rows; those of `figures` without their bar, which is for SQLite."""
    return tuple(replace(row, bar=None) if row.figure in figures else row for row in workload.rows)


def _w2_rows(store: str) -> tuple[Row, ...]:
    figure = "all_steps_per_s"
    thirty = Bar("at least 30 x DBOS", lambda m: m[ERGON][figure] >= 30 * m[DBOS][figure])
    return (
        Row(
            "schedule to last result", figure, "steps/s", thirty if store == POSTGRES else None, more_is_better=True
        ),
        Row("durable steps, first body to last", "steps_per_s", "steps/s", more_is_better=True,
            others={FLOOR: figure}),
    )  # fmt: skip


def of(store: str) -> tuple[Workload, ...]:
    """All workloads on one server."""
    dbos = store == POSTGRES
    group = "floor: bare asyncio tasks whose rows one connection group-commits: no flow rows, no claims, no results"
    return (
        on(store, w1_sequential.WORKLOAD, floor=bare_servers.w1, rivals={DBOS: {"warm": 10}} if dbos else None,
           rows=w1_sequential.WORKLOAD.rows[:2], rounds=7,
           notes=("floor: one row, one durable write, awaited on one connection",)),
        on(store, w2_concurrent.WORKLOAD, floor=bare_servers.w2, rivals={DBOS: {"flows": 50}} if dbos else None,
           rows=_w2_rows(store), notes=(group,)),
        on(store, w3_fan_out.WORKLOAD, floor=bare_servers.w3, rivals={DBOS: {"times": 1}} if dbos else None,
           rounds=15),
        on(store, w4_replay.WORKLOAD),
        on(store, w5_queue.WORKLOAD, rivals={DBOS: {"flows": 200}} if dbos else None,
           rows=_unbarred(w5_queue.WORKLOAD, "drain_flows_per_s")),
        on(store, w6_waiting.WORKLOAD),
        on(store, w8_crash.WORKLOAD, notes=w8_crash.WORKLOAD.notes[:2]),
        on(store, w9_processes.WORKLOAD),
    )  # fmt: skip


WORKLOADS = (*of(POSTGRES), *of(REDIS))
