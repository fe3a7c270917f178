"""What the behaviours share. Nothing here knows which log it is.

Time is the log's own and goes on by itself: a test gives short leases and delays, and waits until a condition holds.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from ergon.core.commit import (
    ChildCancel,
    ClaimedFlow,
    ClaimRequest,
    Commit,
    FlowRecord,
    IdTaken,
    Lease,
    Message,
    NewFlow,
    Received,
    Settled,
    WorkerRecord,
)
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.storage.process import this_process

LONG_SECONDS: Final = 3600.0
"""What does not happen during a test."""
NEAR_SECONDS: Final = 60.0
"""How far apart two readings of one clock may be at most, on a machine whose disk stalls."""
_patience: Final = [30.0]
_numbers: Final = itertools.count(1)


# -- values --------------------------------------------------------------------------------------------------


def worker_record(worker_id: str = "w1", **changes: Any) -> WorkerRecord:
    """A worker of this process."""
    here = this_process()
    values: dict[str, Any] = {
        "id": worker_id,
        "name": "worker",
        "host": here.host,
        "pid": here.pid,
        "process_start": here.process_start,
        "boot_id": here.boot_id,
        **changes,
    }
    return WorkerRecord(**values)


def new_flow(id: str | None = None, **changes: Any) -> NewFlow:
    """A flow named `order`."""
    return NewFlow(**{"id": id or f"flow-{next(_numbers)}", "name": "order", "input": "{}", **changes})


def child(id: str = "c", op: str | None = "0:3", **changes: Any) -> NewFlow:
    """A child of `p`."""
    return new_flow(id, **{"parent_id": "p", "parent_op": op, **changes})


def stop(id: str | None = "c", op: str = "0:3", **changes: Any) -> ChildCancel:
    """What a parent asks that stopped waiting."""
    return ChildCancel(id, op, '"enough"', **changes)


def event(
    seq: int, payload: str | None = '{"ok":true}', *, op: str = "0/1:1", at: float = 1_800_000_000.123456
) -> Event:
    """The result of a step."""
    return Event(seq, "step_completed", op, "charge", "9f86d081", payload, at, "shop.py:42", 1)


def signal(flow_id: str, name: str = "go", payload: str | None = "1", key: str | None = None) -> Message:
    """A signal."""
    return Message(flow_id, "signal", name, payload, key)


def cancel(flow_id: str, key: str | None = "cancel", payload: str | None = None) -> Message:
    """What a person sends who cancels a flow."""
    return Message(flow_id, "cancel", "", payload, key)


def taken(message: Received) -> IdTaken:
    """What a message says that tells of a taken id."""
    assert message.kind == "taken"
    return IdTaken.read(message.payload or "")


def ids(flows: Iterable[ClaimedFlow | FlowRecord]) -> list[str]:
    """Their ids, in order."""
    return [one.flow.id if isinstance(one, ClaimedFlow) else one.id for one in flows]


# -- acts ----------------------------------------------------------------------------------------------------


async def register(
    log: ExecutionLog, worker_id: str = "w1", lease_seconds: float = LONG_SECONDS, **changes: Any
) -> str:
    """Declare a worker of this process alive."""
    await log.register(worker_record(worker_id, **changes), lease_seconds=lease_seconds)
    return worker_id


async def commit(log: ExecutionLog, value: Commit) -> None:
    """Submit a commit and wait; raises what `done` is told."""
    (error,) = await commit_all(log, value)
    if error is not None:
        raise error


async def commit_all(log: ExecutionLog, *values: Commit) -> list[BaseException | None]:
    """Submit commits at once, so that they may share a transaction; returns what each `done` was told."""
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[BaseException | None]] = [loop.create_future() for _ in values]
    for value, future in zip(values, futures, strict=True):
        log.submit(value, future.set_result)
    return list(await asyncio.gather(*futures))


async def claim(log: ExecutionLog, worker: str = "w1", **changes: Any) -> list[ClaimedFlow]:
    """Claim flows named `order`."""
    return await log.claim(ClaimRequest(**{"worker": worker, "names": ("order",), **changes}))


async def claim_one(log: ExecutionLog, flow_id: str, worker: str = "w1", **changes: Any) -> ClaimedFlow:
    """Claim a flow that is ready, by its id."""
    (claimed,) = await claim(log, worker, flow_id=flow_id, **changes)
    return claimed


async def claimed_flow(log: ExecutionLog, flow_id: str = "f1", worker: str = "w1", **changes: Any) -> Lease:
    """Create a flow and claim it."""
    await log.create(new_flow(flow_id, **changes))
    return (await claim_one(log, flow_id, worker)).lease


async def parent_of(log: ExecutionLog, *children: NewFlow, id: str = "p") -> Lease:
    """A claimed flow that has started these children."""
    lease = await claimed_flow(log, id)
    if children:
        await commit(log, Commit(id, lease, children=children))
    return lease


async def settle(
    log: ExecutionLog, flow_id: str, lease: Lease, status: TaskStatus = TaskStatus.COMPLETED, **changes: Any
) -> None:
    """Let a flow go."""
    await commit(log, Commit(flow_id, lease, settled=Settled(status, **changes)))


async def finish(
    log: ExecutionLog, flow_id: str, status: TaskStatus = TaskStatus.COMPLETED, **changes: Any
) -> None:
    """Claim a flow and let it end."""
    await settle(log, flow_id, (await claim_one(log, flow_id)).lease, status, **changes)


async def kill_worker(log: ExecutionLog, worker_id: str) -> WorkerRecord:
    """Let a worker's lease run out and have it declared dead; returns what the log said of it."""
    await log.renew(worker_id, lease_seconds=0.001)

    async def is_dead() -> WorkerRecord | None:
        return next((dead for dead in await log.reap() if dead.id == worker_id), None)

    dead: WorkerRecord = await until(is_dead)
    return dead


# -- looks ---------------------------------------------------------------------------------------------------


async def record(log: ExecutionLog, flow_id: str) -> FlowRecord:
    """A flow that is there."""
    flow = await log.find(flow_id)
    assert flow is not None, f"there is no flow {flow_id!r}"
    return flow


async def status_of(log: ExecutionLog, flow_id: str) -> TaskStatus:
    """Where a flow stands."""
    return (await record(log, flow_id)).status


async def stamp(log: ExecutionLog) -> float:
    """A time as the log writes it; `log.now()` may be an estimate of it."""
    await log.create(watch := new_flow(name="stamp"))
    return (await record(log, watch.id)).created_at


def is_near(one: float | None, other: float) -> bool:
    """Tell whether two readings are of the same clock."""
    return one is not None and abs(one - other) < NEAR_SECONDS


async def until(condition: Callable[[], Awaitable[Any] | Any], *, seconds: float | None = None) -> Any:
    """Wait until a condition holds; returns what it returned."""
    give_up_at = time.monotonic() + (_patience[0] if seconds is None else seconds)
    while True:
        answer = condition()
        value = await answer if isinstance(answer, Awaitable) else answer
        if value:
            return value
        assert time.monotonic() < give_up_at, "the condition never held"
        await asyncio.sleep(0.002)


def be_patient(seconds: float) -> None:
    """How long `until` waits. Less is for tests of the suite itself, against logs that are wrong."""
    _patience[0] = seconds
