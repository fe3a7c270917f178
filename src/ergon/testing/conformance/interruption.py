"""The server ends every connection: the log connects again, and what it answers is true.

Each behaviour interrupts at other moments. A call may fail with a `StoreError` then; whoever repeats it, as its
contract says, finds that it has happened once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ergon.core.commit import Commit, FlowFilter, Hint, Lease, Settled
from ergon.core.status import TaskStatus
from ergon.errors import FlowNotFound, IllegalMove, LeaseLost, StoreError
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    new_flow,
    record,
    register,
    settle,
    signal,
    status_of,
    until,
)
from ergon.testing.conformance.store import Store

T = TypeVar("T")
ROUNDS = 5


async def repeat(act: Callable[[], Awaitable[T]]) -> T:
    """Do it until it succeeds. What the log refuses for good is no matter of connections."""
    answers: list[T] = []

    async def try_once() -> bool:
        try:
            answers.append(await act())
        except (LeaseLost, IllegalMove, FlowNotFound):
            raise
        except StoreError:
            return False
        return True

    await until(try_once)
    return answers[0]


async def test_a_read_after_an_interruption_is_answered(store: Store) -> None:
    async with store.open() as log:
        await log.create(new_flow("f1"))
        for _ in range(ROUNDS):
            await store.interrupt()
            assert await repeat(lambda: status_of(log, "f1")) is TaskStatus.PENDING
            assert len((await repeat(lambda: log.list(FlowFilter())))[0]) == 1


async def test_a_write_after_an_interruption_lands_once(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        lease = await claimed_flow(log)
        for n in range(1, ROUNDS + 1):
            await store.interrupt()
            value = Commit("f1", lease, (event(n),))
            await repeat(lambda value=value: commit(log, value))  # type: ignore[misc]

        assert [e.seq for e in await log.history("f1")] == list(range(1, ROUNDS + 1))


async def test_commits_that_are_interrupted_land_once_each(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        leases = {f"f{n}": await claimed_flow(log, f"f{n}") for n in range(20)}

        async def write(flow_id: str) -> None:
            for seq in range(1, 16):
                value = Commit(flow_id, leases[flow_id], (event(seq, f'"{flow_id}"'),))
                await repeat(lambda value=value: commit(log, value))  # type: ignore[misc]

        await while_interrupted(store, *(write(id) for id in leases))

        for id in leases:
            assert await log.history(id) == [event(seq, f'"{id}"') for seq in range(1, 16)]


async def test_flows_whose_creation_is_interrupted_are_there_once(store: Store) -> None:
    async with store.open() as log:

        async def create(n: int) -> None:
            flow = new_flow(f"f{n}", input=str(n))
            found = await repeat(lambda: log.create(flow))
            assert found is None or found.input == str(n)

        await while_interrupted(store, *(create(n) for n in range(100)))

        assert await log.count(FlowFilter()) == {TaskStatus.PENDING: 100}


async def test_keyed_signals_that_are_interrupted_are_heard_once(store: Store) -> None:
    async with store.open() as log:
        await log.create(new_flow("f1"))

        async def send(n: int) -> None:
            await repeat(lambda: log.send(signal("f1", payload=str(n), key=f"k{n}")))

        await while_interrupted(store, *(send(n) for n in range(100)))

        assert sorted(int(m.payload or "") for m in await log.inbox("f1")) == list(range(100))


async def test_claims_that_are_interrupted_leave_every_flow_with_one_owner_or_none(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        await asyncio.gather(*(log.create(new_flow(f"f{n}")) for n in range(60)))
        done: set[tuple[str, int]] = set()

        async def work() -> None:
            while len({id for id, _ in done}) < 60:
                for one in await repeat(lambda: claim(log, limit=5)):
                    last = Commit(one.flow.id, one.lease, (event(1),), settled=Settled(TaskStatus.COMPLETED))
                    await repeat(lambda last=last: commit(log, last))  # type: ignore[misc]
                    done.add((one.flow.id, one.lease.epoch))
                # A claim whose answer was lost has an owner that runs none of it. Nothing is under way now.
                await repeat(lambda: log.disown("w1", list(done)))

        await while_interrupted(store, work())

        assert await log.count(FlowFilter()) == {TaskStatus.COMPLETED: 60}
        for n in range(60):
            assert await log.history(f"f{n}") == [event(1)]


async def test_an_end_that_is_interrupted_happens_once_and_is_told_once(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        parent = await claimed_flow(log, "p")
        children = tuple(new_flow(f"c{n}", parent_id="p", parent_op=f"0:{n}") for n in range(30))
        await commit(log, Commit("p", parent, children=children))
        leases = {one.id: (await claim_one(log, one.id)).lease for one in children}

        async def end(flow_id: str) -> None:
            last = Commit(flow_id, leases[flow_id], (event(1),), settled=Settled(TaskStatus.COMPLETED, "1"))
            await repeat(lambda: commit(log, last))

        await while_interrupted(store, *(end(id) for id in leases))

        told = [message.name for message in await log.inbox("p")]
        assert sorted(told) == sorted(f"0:{n}" for n in range(30))


async def test_acts_that_are_interrupted_are_done_once(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        for n in range(15):
            await settle(log, f"f{n}", await claimed_flow(log, f"f{n}"), TaskStatus.FAILED, output='"boom"')

        async def retry(flow_id: str) -> None:
            with contextlib.suppress(IllegalMove):  # done already: the answer to an earlier one was lost
                await repeat(lambda: log.move(flow_id, TaskStatus.PENDING, only=(TaskStatus.FAILED,)))

        await while_interrupted(store, *(retry(f"f{n}") for n in range(15)))

        for n in range(15):
            assert [e.kind for e in await log.history(f"f{n}")] == ["flow_retried"]


async def test_a_worker_keeps_its_lease_through_interruptions(store: Store) -> None:
    async with store.open() as log:
        await register(log)
        lease = await claimed_flow(log)
        for _ in range(ROUNDS):
            await store.interrupt()
            await repeat(lambda: log.renew("w1", lease_seconds=3600))
        assert await repeat(log.reap) == []

        await repeat(lambda: commit(log, Commit("f1", lease, (event(1),))))


async def test_a_listener_hears_again_after_an_interruption(store: Store) -> None:
    async with store.open() as log, store.open() as other:
        heard: list[Hint] = []
        log.subscribe(heard.append)
        await store.interrupt()

        async def is_heard() -> bool:
            # What is told while the log connects again may be lost: hints are.
            await repeat(lambda: other.create(new_flow()))
            await asyncio.sleep(0.02)
            return bool(heard)

        await until(is_heard)
        heard.clear()
        await until(is_heard)


async def test_arrivals_miss_nothing_over_interruptions(store: Store) -> None:
    async with store.open() as log, store.open() as other:
        await register(log)
        await claimed_flow(log)
        cursor, seen = 0, set[str | None]()
        for n in range(ROUNDS * 2):
            await repeat(lambda n=n: other.send(signal("f1", payload=str(n), key=str(n))))  # type: ignore[misc]
            await store.interrupt()
            cursor, messages = await repeat(lambda cursor=cursor: log.arrivals("w1", cursor))  # type: ignore[misc]
            seen.update(message.payload for message in messages)

        assert seen == {str(n) for n in range(ROUNDS * 2)}


async def test_a_fence_holds_over_interruptions(store: Store) -> None:
    async with store.open() as log, store.open() as other:
        await register(log)
        lease = await claimed_flow(log)
        await other.move("f1", TaskStatus.PAUSED)
        await store.interrupt()

        for late in (lease, Lease("w1", 9)):
            try:
                await repeat(lambda late=late: commit(log, Commit("f1", late, (event(1),))))  # type: ignore[misc]
            except LeaseLost:
                continue
            raise AssertionError("a lost lease wrote")

        assert await repeat(lambda: log.history("f1")) == []


async def test_a_log_can_be_closed_after_an_interruption(store: Store) -> None:
    log = await store.open().connect()
    await log.create(new_flow("f1"))
    await store.interrupt()

    await log.close()

    async with store.open() as again:
        assert (await record(again, "f1")).id == "f1"


async def while_interrupted(store: Store, *work: Awaitable[object]) -> None:
    """Do all of it while the connections break now and then."""
    doing = asyncio.gather(*work)
    for _ in range(ROUNDS):
        await asyncio.sleep(0.01)
        await store.interrupt()
    await doing
