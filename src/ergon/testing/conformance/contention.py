"""Several processes that do the same at once: each thing happens once."""

from __future__ import annotations

import asyncio

from ergon.core.commit import Commit, FlowFilter
from ergon.core.status import TaskStatus
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claimed_flow,
    commit,
    event,
    ids,
    new_flow,
    record,
    register,
    settle,
    signal,
    until,
)
from ergon.testing.conformance.store import Store, two


async def test_many_open_a_new_log_at_once(store: Store) -> None:
    logs = [store.open() for _ in range(6)]

    await asyncio.gather(*(log.connect() for log in logs))

    for n, log in enumerate(logs):
        await log.create(new_flow(f"f{n}"))
    assert await asyncio.gather(*(log.count(FlowFilter()) for log in logs)) == [{TaskStatus.PENDING: 6}] * 6
    await asyncio.gather(*(log.close() for log in logs))


async def test_of_two_handles_that_create_one_id_exactly_one_does(store: Store) -> None:
    async with two(store) as (one, other):
        for n in range(20):
            answers = await asyncio.gather(
                one.create(new_flow(f"f{n}", input="1")), other.create(new_flow(f"f{n}", input="2"))
            )

            assert answers.count(None) == 1
            assert {flow.input for flow in answers if flow} == {(await record(one, f"f{n}")).input}


async def test_a_flow_is_claimed_through_one_handle_only(store: Store) -> None:
    async with two(store) as (one, other):
        for worker, log in (("w1", one), ("w2", other)):
            await register(log, worker)
        await asyncio.gather(*(one.create(new_flow(f"f{n}")) for n in range(100)))

        claims = await asyncio.gather(
            *(claim(log, worker, limit=5) for worker, log in (("w1", one), ("w2", other)) * 10)
        )

        claimed = [id for some in claims for id in ids(some)]
        assert len(claimed) == len(set(claimed)) == 100


async def test_of_several_who_reap_one_declares_each_worker_dead(store: Store) -> None:
    async with two(store) as (one, other):
        for n in range(5):
            await register(one, f"w{n}", lease_seconds=0.001)
        dead: list[str] = []

        async def all_are_dead() -> bool:
            for found in await asyncio.gather(one.reap(), other.reap(), one.reap(), other.reap()):
                dead.extend(worker.id for worker in found)
            return len(dead) >= 5

        await until(all_are_dead)

        assert sorted(dead) == [f"w{n}" for n in range(5)]


async def test_arrivals_miss_nothing_that_several_processes_send_at_once(store: Store) -> None:
    """A cursor may not pass a message that another process is still writing."""
    async with two(store) as (one, other):
        await register(one)
        await claimed_flow(one)
        seen: set[str | None] = set()
        cursor = 0

        async def send(log: ExecutionLog, who: str) -> None:
            for n in range(60):
                await log.send(signal("f1", payload=f'"{who}{n}"'))

        sending = asyncio.gather(send(one, "a"), send(other, "b"))
        while not sending.done():
            cursor, messages = await one.arrivals("w1", cursor)
            seen.update(message.payload for message in messages)
        await sending
        _, messages = await one.arrivals("w1", cursor)
        seen.update(message.payload for message in messages)

        assert len(seen) == 120


async def test_a_list_has_a_flow_once_that_goes_from_one_of_its_statuses_to_another(store: Store) -> None:
    """Whoever waits until nothing is open asks for all open statuses, and must not be told that nothing is."""
    both = FlowFilter(statuses=(TaskStatus.PAUSED, TaskStatus.PENDING))
    async with two(store) as (one, other):
        await one.create(new_flow("f1"))
        looks = asyncio.create_task(_looks(other, both, count=150))
        while not looks.done():
            await one.move("f1", TaskStatus.PAUSED)
            await one.move("f1", TaskStatus.PENDING)

        assert await looks == [["f1"]] * 150


async def _looks(log: ExecutionLog, where: FlowFilter, *, count: int) -> list[list[str]]:
    return [ids((await log.list(where))[0]) for _ in range(count)]


async def test_a_key_counts_for_all_processes(store: Store) -> None:
    async with two(store) as (one, other):
        await one.create(new_flow("f1"))

        await asyncio.gather(
            *(log.send(signal("f1", key=f"k{n}")) for n in range(10) for log in (one, other))
        )

        assert len(await one.inbox("f1")) == 10
        assert await other.has_key(signal("f1", key="k3"))


async def test_several_logs_together_finish_every_flow_exactly_once(store: Store) -> None:
    async with two(store) as (one, other), store.open() as third:
        logs = (one, other, third)
        for n, log in enumerate(logs):
            await register(log, f"w{n}")
        await asyncio.gather(*(one.create(new_flow(f"f{n}")) for n in range(120)))

        async def work(log: ExecutionLog, worker: str) -> int:
            done = 0
            while claimed := await claim(log, worker, limit=7):
                for flow in claimed:
                    await commit(log, Commit(flow.flow.id, flow.lease, (event(1, f'"{worker}"'),)))
                    await settle(log, flow.flow.id, flow.lease)
                    done += 1
            return done

        counts = await asyncio.gather(*(work(log, f"w{n}") for n, log in enumerate(logs)))

        assert sum(counts) == 120
        assert await one.count(FlowFilter()) == {TaskStatus.COMPLETED: 120}
        for n in range(120):
            assert len(await one.history(f"f{n}")) == 1


async def test_many_writers_on_many_handles_lose_and_double_nothing(store: Store) -> None:
    async with two(store) as (one, other), store.open() as third:
        logs = (one, other, third)
        await register(one)
        leases = {f"f{n}": await claimed_flow(one, f"f{n}") for n in range(12)}

        async def write(flow_id: str, log: ExecutionLog) -> None:
            for seq in range(1, 11):
                await asyncio.gather(
                    commit(log, Commit(flow_id, leases[flow_id], (event(seq, f'"{flow_id}"'),))),
                    log.send(signal(flow_id, payload=str(seq), key=f"{seq}")),
                )

        await asyncio.gather(*(write(id, logs[n % 3]) for n, id in enumerate(leases)))

        for id in leases:
            assert await one.history(id) == [event(seq, f'"{id}"') for seq in range(1, 11)]
            assert sorted(m.payload or "" for m in await other.inbox(id)) == sorted(map(str, range(1, 11)))
