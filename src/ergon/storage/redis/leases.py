"""Who is alive, and what becomes of the flows of those who are not.

Marking an incarnation dead and taking away the flows it owns in one part of the log is one script: a flow that names
an owner has one that is alive in that part, and the flow's own owner and epoch fence every write. Its lease is in the
first part, its home, where it is declared dead first; the other parts follow, each in one script. Until a part has
followed, the incarnation may still write to its flows there, which nobody else can claim yet.

What a crash leaves behind while an incarnation is declared dead: its home knows (`unfinished`), and the next reaper
tells the other parts. While it registers: its home knows it, with a lease that runs out.
"""

from __future__ import annotations

import asyncio
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
    """Declare an incarnation alive: first in its home, where its lease is, then in the other parts."""
    values = (worker.id.encode(), worker_json(worker), _seconds(lease_seconds))
    await _call(session, "register", "register", values, worker.id)
    await asyncio.gather(
        *(
            _call(session, "register", "register", values, worker.id, partition=partition)
            for partition in range(1, session.partitions.count)
        )
    )
    found = await catalog.worker(session, worker.id)
    if found is None:
        raise _lost(worker.id)
    return found


async def renew(
    session: Session, worker_id: str, lease_seconds: float, doing: dict[str, str] | None
) -> float:
    """Extend a lease; return when it now ends."""
    values = (worker_id.encode(), _seconds(lease_seconds))
    answer = await _call(session, "renew", "renew", values, worker_id)
    parts = session.partitions.spread(list((doing or {}).items()), lambda pair: pair[0])
    for partition, pairs in parts.items():
        packed = pack([list(pair) for pair in pairs])
        await _call(session, "renew", "doing", (worker_id.encode(), packed), worker_id, partition=partition)
    return float(answer[6])


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
    for worker, lease_seconds, is_unfinished in await catalog.workers_and_ends(session):
        if worker.state not in _LIVING:
            if is_unfinished:  # whoever declared it dead died before every part knew
                await _end_elsewhere(session, "reap", worker.id, worker.state)
            continue
        gone = process.is_gone(
            pid=worker.pid, process_start=worker.process_start, boot=worker.boot_id, one_machine=False
        )
        left = worker.lease_expires_at - now
        if gone or not 1.0 < left <= lease_seconds + 1.0:  # or longer than it can be: the clock was set back
            ended = await _end(session, "reap", worker.id, "dead", is_gone=gone)
            found = await catalog.worker(session, worker.id) if ended is not None else None
            if found is not None:
                dead.append(found)
    await session.carry_left()
    return dead


async def unknown(
    session: Session, worker_id: str, known: Collection[tuple[str, int]]
) -> list[tuple[str, int]]:
    """The flows that a worker owns and does not know of, with their epochs, changing nothing."""
    owned: list[tuple[str, int]] = []
    for flat in await session.ask_all("owned", worker_id.encode()):
        owned += [(id.decode(), int(epoch or 0)) for id, epoch in zip(flat[::2], flat[1::2], strict=True)]
    return [pair for pair in owned if pair not in known]


async def disown(session: Session, worker_id: str, flows: Sequence[tuple[str, int]]) -> list[str]:
    """Let go of flows that their owner does not know of."""
    released: list[str] = []
    for partition, some in session.partitions.spread(flows, lambda pair: pair[0]).items():
        values = _released(worker_id, "disowned", some)
        answer = await _call(session, "release", "release", values, worker_id, partition=partition)
        released += [flow_id.decode() for flow_id in answer[6]]
    return released


def give_back(session: Session, worker_id: str, flows: Sequence[tuple[str, int]]) -> None:
    """Let go of flows just claimed that nobody will run, and wait for nothing."""
    for partition, some in session.partitions.spread(flows, lambda pair: pair[0]).items():
        values = _released(worker_id, "given back", some)
        write = Write[None]("release", "release", partition, values, lambda _: None, future=None)
        session.submit(write, write.done)


def _released(worker_id: str, how: str, flows: Sequence[tuple[str, int]]) -> tuple[bytes, ...]:
    return worker_id.encode(), how.encode(), pack([list(pair) for pair in flows])


async def _end(session: Session, name: str, worker_id: str, state: str, *, is_gone: bool) -> int | None:
    """End an incarnation in its home, then elsewhere; None when it had ended before, or lives."""
    ended = await _end_in(session, name, worker_id, state, is_gone=is_gone)
    if ended is None:
        return None
    return ended + await _end_elsewhere(session, name, worker_id, state)


async def _end_elsewhere(session: Session, name: str, worker_id: str, state: str) -> int:
    """In the other parts of a log on a cluster. Its home knows until then that this is to be done."""
    count = session.partitions.count
    if count == 1:
        return 0
    released = await asyncio.gather(
        *(_end_in(session, name, worker_id, state, partition=part, is_gone=True) for part in range(1, count))
    )
    await _call(session, name, "finish_worker", (worker_id.encode(),), worker_id)
    return sum(number or 0 for number in released)


async def _end_in(
    session: Session, name: str, worker_id: str, state: str, *, is_gone: bool, partition: int = 0
) -> int | None:
    values = (worker_id.encode(), state.encode(), b"1" if is_gone else b"0")

    def read(answer: list[Any]) -> int | None:
        return int(answer[6]) if answer[0] == b"ok" else None

    return await session.write(Write(name, "end_worker", partition, values, read, future=session.future()))


async def _call(
    session: Session, name: str, script: str, values: tuple[bytes, ...], worker_id: str, *, partition: int = 0
) -> list[Any]:
    def read(answer: list[Any]) -> list[Any]:
        if answer[0] == b"dead":
            raise _lost(worker_id)
        return answer

    return await session.write(Write(name, script, partition, values, read, future=session.future()))


def _seconds(value: float) -> bytes:
    return repr(float(value)).encode()


def _lost(worker_id: str) -> LeaseLost:
    return LeaseLost(f"worker {worker_id!r} is not alive in the log; register again under a new id")
