"""Who is alive, and what becomes of the flows of those who are not.

Whoever declares a worker dead locks its row first and then those of its flows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from ergon.core.commit import WorkerRecord
from ergon.errors import LeaseLost
from ergon.storage import process
from ergon.storage.postgres import rows
from ergon.storage.postgres.driver import Connection
from ergon.storage.postgres.rows import as_json, columns
from ergon.storage.postgres.statements import statements
from ergon.storage.postgres.transaction import Transaction, distinct

_SQL: Final = statements("leases.sql")
RENEW: Final = _SQL["renew"]


async def register(tx: Transaction, worker: WorkerRecord, lease_seconds: float) -> WorkerRecord:
    """Declare an incarnation alive."""
    await tx.write(_SQL["forget"], tx.lease_now)
    await tx.write(_SQL["forget_landed"], tx.now)
    found = await tx.write_rows(
        _SQL["register"],
        worker.id,
        worker.name,
        worker.host,
        worker.pid,
        worker.process_start,
        worker.boot_id,
        as_json(worker.flows),
        as_json(worker.queues),
        json.dumps(worker.versions, ensure_ascii=False),
        as_json(worker.tags),
        tx.now,
        lease_seconds,
        tx.lease_now + lease_seconds,
    )
    if not found:
        raise _lost(worker.id)
    return rows.worker(found[0])


async def renew(tx: Transaction, worker_id: str, lease_seconds: float, doing: dict[str, str] | None) -> float:
    """Extend a lease; return when it now ends."""
    if not await tx.write(RENEW, worker_id, tx.lease_now, lease_seconds):
        raise _lost(worker_id)
    if doing:
        flows = sorted(doing)
        await tx.write(_SQL["doing"], flows, [rows.kept(doing[flow]) for flow in flows], worker_id)
    return tx.lease_now + lease_seconds


async def alive(tx: Transaction, workers: Sequence[str]) -> set[str]:
    """Those that are alive, and stay so until the transaction ends."""
    return {row[0] for row in await tx.rows(_SQL["alive"], distinct(workers))}


async def check_alive(tx: Transaction, worker_id: str, *, hold: bool) -> None:
    """Raise `LeaseLost` unless this incarnation is alive; `hold`: it stays so until the transaction ends."""
    found = await alive(tx, [worker_id]) if hold else await tx.rows(_SQL["is_alive"], worker_id)
    if not found:
        raise _lost(worker_id)


async def note_draining(tx: Transaction, worker_id: str) -> None:
    """Say that an incarnation is about to end."""
    await tx.write(_SQL["note_draining"], worker_id)


async def retire(tx: Transaction, worker_id: str) -> int:
    """End an incarnation willingly; return how many flows it gave back."""
    if not await _end(tx, [worker_id], gone=[worker_id], state="stopped"):
        return 0
    return await _release(tx, [worker_id], willingly=True)


class Suspects(NamedTuple):
    """Workers said to be alive of whom that may not be so, or not for so long."""

    expired: list[str]
    """Their lease seems to have run out."""
    gone: list[str]
    """Their process has ended."""
    ahead: list[str]
    """Their lease ends later than any given now would: the server's clock was set back."""


async def suspects(connection: Connection, lease_now: float) -> Suspects:
    """Look for workers to declare dead, changing nothing."""
    expired, gone, ahead = found = Suspects([], [], [])
    for worker_id, pid, process_start, boot_id, is_over, is_ahead in await connection.fetch(
        _SQL["suspects"], lease_now
    ):
        if is_ahead:
            ahead.append(worker_id)
        if is_over:
            expired.append(worker_id)
        elif process.is_gone(pid=pid, process_start=process_start, boot=boot_id, one_machine=False):
            gone.append(worker_id)
    return found


async def reap(tx: Transaction) -> list[WorkerRecord]:
    """Declare dead who is; then their flows become pending.

    Marking waits for claims of that worker that are under way, and refuses later ones; taking its flows away waits
    for its commits that are under way, and later ones find another owner.
    """
    expired, gone, ahead = await suspects(tx.connection, tx.lease_now)
    if ahead:
        await tx.write(_SQL["trim_leases"], ahead, tx.lease_now)
    if not expired and not gone:
        return []
    dead = await _end(tx, [*expired, *gone], gone=gone, state="dead")
    if dead:
        await _release(tx, [worker.id for worker in dead], willingly=False)
    return dead


async def unknown(
    connection: Connection, worker_id: str, known: Collection[tuple[str, int]]
) -> list[tuple[str, int]]:
    """Return the flows, with epochs, that a worker owns and does not know of, changing nothing."""
    owned = [(row[0], row[1]) for row in await connection.fetch(_SQL["owned"], worker_id)]
    return [pair for pair in owned if pair not in known]


async def disown(tx: Transaction, worker_id: str, flows: Sequence[tuple[str, int]]) -> None:
    """Let go of flows that their owner does not know of."""
    if await tx.write(_SQL["disown"], worker_id, *columns(sorted(flows), 2), tx.now):
        tx.ready = True


async def give_back(tx: Transaction, worker_id: str, flows: Sequence[tuple[str, int]]) -> None:
    """Let go of flows just claimed that nobody will run."""
    if await tx.write(_SQL["give_back"], worker_id, *columns(sorted(flows), 2), tx.now):
        tx.ready = True


async def _end(
    tx: Transaction, workers: Sequence[str], *, gone: Sequence[str], state: str
) -> list[WorkerRecord]:
    found = await tx.write_rows(_SQL["end_workers"], distinct(workers), list(gone), tx.lease_now, state)
    return [rows.worker(row) for row in found]


async def _release(tx: Transaction, workers: list[str], *, willingly: bool) -> int:
    await tx.rows(_SQL["lock_owned"], workers)
    released = await tx.write(_SQL["release_flows"], workers, tx.now, willingly)
    if released:
        tx.ready = True
    return released


def _lost(worker_id: str) -> LeaseLost:
    return LeaseLost(f"worker {worker_id!r} is not alive in the log; register again under a new id")
