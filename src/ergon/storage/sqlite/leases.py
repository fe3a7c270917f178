"""Who is alive, and what becomes of the flows of those who are not."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from typing import Any, Final

from ergon.core.commit import WorkerRecord
from ergon.errors import LeaseLost
from ergon.storage import process
from ergon.storage.sqlite import damage, rows
from ergon.storage.sqlite.statements import Bulk, statements
from ergon.storage.sqlite.transaction import Transaction, as_json

_SQL: Final = statements("leases.sql")
FIRST: Final = (_SQL["is_alive"],)
"""What every flow needs: see `priming.py`."""
_DOING: Final = Bulk(_SQL["doing"], 3)


def register(tx: Transaction, worker: WorkerRecord, lease_seconds: float) -> WorkerRecord:
    """Declare an incarnation alive."""
    tx.run(_SQL["forget"], now=tx.now)
    written = tx.run(
        _SQL["register"],
        id=worker.id,
        name=worker.name,
        host=worker.host,
        pid=worker.pid,
        process_start=worker.process_start,
        boot_id=worker.boot_id,
        flows=as_json(worker.flows),
        queues=as_json(worker.queues),
        versions="null" if worker.versions is None else as_json(worker.versions),
        tags=as_json(worker.tags),
        now=tx.now,
        expires_at=tx.now + lease_seconds,
        expires_boot=tx.boot + lease_seconds,
    )
    if not written:
        raise _lost(worker.id)
    return rows.worker_records(tx.one(_SQL["find"], worker=worker.id)[0])[0]


def renew(tx: Transaction, worker_id: str, lease_seconds: float, doing: dict[str, str] | None) -> float:
    """Extend a lease; return when it now ends."""
    expires_at = tx.now + lease_seconds
    written = tx.run(
        _SQL["renew"], worker=worker_id, expires_at=expires_at, expires_boot=tx.boot + lease_seconds
    )
    if not written:
        raise _lost(worker_id)
    if doing:
        values: list[Any] = []
        for flow_id, reason in doing.items():
            values += (flow_id, worker_id, reason)
        try:
            _DOING.run(tx.connection, values)
        except sqlite3.IntegrityError as error:  # a lease must not be lost because one flow's row is damaged
            damage.tell(f"what the flows of worker {worker_id!r} do cannot be told: {error}")
    return expires_at


def keep(tx: Transaction, worker_id: str, lease_seconds: float) -> None:
    """Extend a lease for somebody who does not wait to hear; change nothing when the incarnation is not alive."""
    tx.run(
        _SQL["renew"],
        worker=worker_id,
        expires_at=tx.now + lease_seconds,
        expires_boot=tx.boot + lease_seconds,
    )


def check_alive(tx: Transaction, worker_id: str) -> None:
    """Raise `LeaseLost` unless this incarnation is alive."""
    if tx.one(_SQL["is_alive"], worker=worker_id) is None:
        raise _lost(worker_id)


def note_draining(tx: Transaction, worker_id: str) -> None:
    """Say that an incarnation is about to end."""
    tx.run(_SQL["note_draining"], worker=worker_id)


def retire(tx: Transaction, worker_id: str) -> int:
    """End an incarnation willingly; return how many flows it gave back."""
    workers = as_json([worker_id])
    if not tx.run(_SQL["end_workers"], workers=workers, state="stopped"):
        return 0
    return _release(tx, workers, willingly=True)


def give_back(tx: Transaction, worker_id: str, nums: list[int]) -> None:
    """Let go of flows just claimed that nobody will run."""
    if tx.run(_SQL["give_back"], worker=worker_id, nums=as_json(nums), now=tx.now):
        tx.ready = True


def unknown(
    connection: sqlite3.Connection, worker_id: str, known: Collection[tuple[str, int]]
) -> dict[int, str]:
    """Return the flows that a worker owns and does not know of, ids by row number, changing nothing."""
    text = connection.execute(_SQL["owned"], {"worker": worker_id}).fetchone()[0]
    owned = [(num, damage.readable(flow_id), epoch) for num, flow_id, epoch in json.loads(text)]
    return {num: flow_id for num, flow_id, epoch in owned if (flow_id, epoch) not in known}


def disown(tx: Transaction, worker_id: str, nums: list[int]) -> None:
    """Let go of flows that their owner does not know of."""
    if damage.write_sound(
        tx, nums, lambda these: tx.run(_SQL["disown"], worker=worker_id, nums=these, now=tx.now)
    ):
        tx.ready = True


def reap(tx: Transaction) -> list[WorkerRecord]:
    """Declare dead who is; then their flows become pending."""
    dead = suspects(tx.connection, tx.now, tx.boot)
    if not dead:
        return []
    workers = as_json(dead)
    tx.run(_SQL["end_workers"], workers=workers, state="dead")
    _release(tx, workers, willingly=False)
    return rows.worker_records(tx.one(_SQL["ended_workers"], workers=workers)[0])


def suspects(connection: sqlite3.Connection, now: float, boot: float) -> list[str]:
    """Return the workers whose lease has run out or whose process is gone, changing nothing.

    A lease is compared by the clock since boot, which nobody can set. Only where a machine has no boot id, so that
    the clocks of two starts cannot be told apart, does the wall clock decide.
    """
    here = process.boot_id()
    text = connection.execute(_SQL["suspects"], {"now": now, "boot": boot}).fetchone()[0]
    dead = []
    for worker_id, pid, process_start, boot_id, over_by_wall, over_by_boot in json.loads(text):
        over = over_by_boot if boot_id and boot_id == here else over_by_wall
        if over or process.is_gone(pid=pid, process_start=process_start, boot=boot_id):
            dead.append(worker_id)
    return dead


def _release(tx: Transaction, workers: str, *, willingly: bool) -> int:
    how = {"now": tx.now, "willingly": willingly}
    try:
        released = tx.run(_SQL["release_flows"], workers=workers, **how)
    except sqlite3.IntegrityError:
        owned = rows.numbers(tx.one(_SQL["owned_by"], workers=workers)[0])
        released = damage.write_sound(tx, owned, lambda nums: tx.run(_SQL["release_these"], nums=nums, **how))
    if released:
        tx.ready = True
    return released


def _lost(worker_id: str) -> LeaseLost:
    return LeaseLost(f"worker {worker_id!r} is not alive in the log; register again under a new id")
