"""Who is alive, and what becomes of the flows of those who are not.

The incarnation's record and the flows it owns are in one part of the log: marking it dead and taking its flows away is
one script, so a flow that names an owner has a living one, and the flow's own owner and epoch fence every write.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from ergon.core.commit import WorkerRecord
from ergon.errors import LeaseLost
from ergon.storage import process
from ergon.storage.redis import catalog
from ergon.storage.redis.rows import worker_json
from ergon.storage.redis.session import Session
from ergon.storage.redis.writes import Write, pack

_LIVING: Final = ("alive", "draining")


async def register(session: Session, worker: WorkerRecord, lease_seconds: float) -> WorkerRecord:
    """Declare an incarnation alive."""
    values = (worker.id.encode(), worker_json(worker), _seconds(lease_seconds))
    await _call(session, "register", "register", values, worker.id)
    found = await catalog.worker(session, worker.id)
    if found is None:
        raise _lost(worker.id)
    return found


async def renew(
    session: Session, worker_id: str, lease_seconds: float, doing: dict[str, str] | None
) -> float:
    """Extend a lease; return when it now ends."""
    doings = pack([list(pair) for pair in (doing or {}).items()])
    values = (worker_id.encode(), _seconds(lease_seconds), doings)
    answer = await _call(session, "renew", "renew", values, worker_id)
    return float(answer[5])


async def note_draining(session: Session, worker_id: str) -> None:
    """Say that an incarnation is about to end."""
    await _call(session, "draining", "drain", (worker_id.encode(),), worker_id)


async def retire(session: Session, worker_id: str) -> int:
    """End an incarnation willingly; return how many flows it gave back."""
    return await _end(session, "retire", worker_id, "stopped", is_gone=False) or 0


async def reap(session: Session, now: float) -> list[WorkerRecord]:
    """Declare dead who is; then their flows become pending.

    Who may be dead is seen here; whether a lease has run out is decided in the script, by the server's clock.
    """
    dead = []
    for worker in await catalog.workers(session):
        if worker.state not in _LIVING:
            continue
        gone = process.is_gone(
            pid=worker.pid, process_start=worker.process_start, boot=worker.boot_id, one_machine=False
        )
        if gone or worker.lease_expires_at <= now + 1.0:
            ended = await _end(session, "reap", worker.id, "dead", is_gone=gone)
            found = await catalog.worker(session, worker.id) if ended is not None else None
            if found is not None:
                dead.append(found)
    return dead


async def unknown(
    session: Session, worker_id: str, known: Collection[tuple[str, int]]
) -> list[tuple[str, int]]:
    """The flows that a worker owns and does not know of, with their epochs, changing nothing."""
    flat = await session.ask("owned", 0, worker_id.encode())
    owned = [
        (flow_id.decode(), int(epoch or 0)) for flow_id, epoch in zip(flat[::2], flat[1::2], strict=True)
    ]
    return [pair for pair in owned if pair not in known]


async def disown(session: Session, worker_id: str, flows: Sequence[tuple[str, int]]) -> list[str]:
    """Let go of flows that their owner does not know of."""
    answer = await _call(session, "release", "release", _released(worker_id, "disowned", flows), worker_id)
    return [flow_id.decode() for flow_id in answer[5]]


def give_back(session: Session, worker_id: str, flows: Sequence[tuple[str, int]]) -> None:
    """Let go of flows just claimed that nobody will run, and wait for nothing."""
    values = _released(worker_id, "given back", flows)
    write = Write[None]("release", "release", "", values, lambda _: None, future=None)
    session.submit(write, write.done)


def _released(worker_id: str, how: str, flows: Sequence[tuple[str, int]]) -> tuple[bytes, ...]:
    return worker_id.encode(), how.encode(), pack([list(pair) for pair in flows])


async def _end(session: Session, name: str, worker_id: str, state: str, *, is_gone: bool) -> int | None:
    values = (worker_id.encode(), state.encode(), b"1" if is_gone else b"0")

    def read(answer: list[Any]) -> int | None:
        return int(answer[5]) if answer[0] == b"ok" else None

    return await session.write(Write(name, "end_worker", "", values, read, future=session.future()))


async def _call(
    session: Session, name: str, script: str, values: tuple[bytes, ...], worker_id: str
) -> list[Any]:
    def read(answer: list[Any]) -> list[Any]:
        if answer[0] == b"dead":
            raise _lost(worker_id)
        return answer

    return await session.write(Write(name, script, "", values, read, future=session.future()))


def _seconds(value: float) -> bytes:
    return repr(float(value)).encode()


def _lost(worker_id: str) -> LeaseLost:
    return LeaseLost(f"worker {worker_id!r} is not alive in the log; register again under a new id")
