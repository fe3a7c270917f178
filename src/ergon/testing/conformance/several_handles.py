"""Several processes on one store: each handle sees what the others wrote, and takes nothing of theirs."""

from __future__ import annotations

import pytest

from ergon.core.commit import Commit, FlowFilter, Hint
from ergon.core.status import TaskStatus
from ergon.errors import LeaseLost
from ergon.testing.conformance.kit import (
    cancel,
    child,
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    finish,
    ids,
    is_near,
    kill_worker,
    new_flow,
    parent_of,
    register,
    settle,
    signal,
    status_of,
    until,
)
from ergon.testing.conformance.store import Store, two


async def test_only_who_made_a_log_takes_it_for_new(store: Store) -> None:
    async with two(store) as (one, other):
        assert not other.is_new
        await other.create(new_flow("f1"))

        assert await one.find("f1") is not None
        await until(lambda: not one.is_new)


async def test_what_one_handle_wrote_another_reads_at_once(store: Store) -> None:
    async with two(store) as (one, other):
        await register(one)
        lease = await claimed_flow(one)
        await commit(one, Commit("f1", lease, (event(1),)))
        await one.send(signal("f1"))

        assert await other.find("f1") == await one.find("f1")
        assert await other.history("f1") == [event(1)]
        assert await other.inbox("f1") == await one.inbox("f1")
        assert await other.workers() == await one.workers()
        assert await other.list(FlowFilter()) == await one.list(FlowFilter())
        assert await other.count(FlowFilter()) == {TaskStatus.RUNNING: 1}


async def test_handles_agree_on_the_time_and_on_the_name_of_the_log(store: Store) -> None:
    async with two(store) as (one, other):
        assert is_near(one.now(), other.now())
        assert one.url == other.url


async def test_a_worker_may_write_through_another_handle_than_it_claimed_with(store: Store) -> None:
    async with two(store) as (one, other):
        await register(one)
        lease = await claimed_flow(one)

        await commit(other, Commit("f1", lease, (event(1),)))

        assert await one.history("f1") == [event(1)]


async def test_a_worker_declared_dead_by_another_process_writes_nothing(store: Store) -> None:
    async with two(store) as (one, other):
        await register(one)
        lease = await claimed_flow(one)
        await kill_worker(other, "w1")

        with pytest.raises(LeaseLost):
            await commit(one, Commit("f1", lease, (event(1),)))
        with pytest.raises(LeaseLost):
            await claim(one)
        with pytest.raises(LeaseLost):
            await one.renew("w1", lease_seconds=30)

        assert await one.history("f1") == []


async def test_a_takeover_by_another_process_goes_on_from_what_was_written(store: Store) -> None:
    async with two(store) as (one, other):
        await register(one)
        await register(other, "w2")
        lease = await claimed_flow(one)
        await commit(one, Commit("f1", lease, (event(1),)))
        await kill_worker(other, "w1")

        taken = await claim_one(other, "f1", "w2")

        assert (taken.lease.worker, taken.lease.claims, taken.events) == ("w2", 2, [event(1)])
        with pytest.raises(LeaseLost):
            await settle(one, "f1", lease)
        await settle(other, "f1", taken.lease)


async def test_a_flow_paused_by_another_process_is_lost_to_its_owner(store: Store) -> None:
    async with two(store) as (one, other):
        await register(one)
        lease = await claimed_flow(one)

        await other.move("f1", TaskStatus.PAUSED)

        assert list(await one.lost("w1", [("f1", lease.epoch)])) == [("f1", TaskStatus.PAUSED)]
        with pytest.raises(LeaseLost):
            await commit(one, Commit("f1", lease, (event(1),)))


async def test_a_signal_from_another_process_arrives(store: Store) -> None:
    async with two(store) as (one, other):
        await register(one)
        await claimed_flow(one)
        cursor, _ = await one.arrivals("w1", 0)

        await other.send(signal("f1", payload='"hello"'))

        _, messages = await one.arrivals("w1", cursor)
        assert [message.payload for message in messages] == ['"hello"']


async def test_a_signal_from_another_process_is_not_slept_upon(store: Store) -> None:
    async with two(store) as (one, other):
        await register(one)
        lease = await claimed_flow(one)
        await other.send(signal("f1"))

        await settle(one, "f1", lease, TaskStatus.SUSPENDED)

        assert await status_of(other, "f1") is TaskStatus.PENDING


async def test_messages_of_several_processes_have_one_order(store: Store) -> None:
    async with two(store) as (one, other):
        await one.create(new_flow("f1"))
        for n in range(20):
            await (one if n % 2 else other).send(signal("f1", payload=str(n)))

        assert [message.payload for message in await one.inbox("f1")] == [str(n) for n in range(20)]


async def test_a_child_that_another_process_runs_tells_its_parent(store: Store) -> None:
    async with two(store) as (one, other):
        await register(one)
        lease = await parent_of(one, child())
        await settle(one, "p", lease, TaskStatus.SUSPENDED)

        await finish(other, "c", output="1")

        assert [message.kind for message in (await claim_one(one, "p")).inbox] == ["child"]


async def test_a_cancel_by_another_process_reaches_a_running_flow(store: Store) -> None:
    async with two(store) as (one, other):
        await register(one)
        await claimed_flow(one)

        await other.send(cancel("f1"))

        assert [message.kind for message in (await one.arrivals("w1", 0))[1]] == ["cancel"]


async def test_a_flow_deleted_by_another_process_is_gone(store: Store) -> None:
    async with two(store) as (one, other):
        await register(one)
        lease = await claimed_flow(one)
        await other.move("f1", TaskStatus.CANCELLED)
        await other.delete("f1")

        assert list(await one.lost("w1", [("f1", lease.epoch)])) == [("f1", None)]
        with pytest.raises(LeaseLost):
            await commit(one, Commit("f1", lease, (event(1),)))
        assert await one.history("f1") == []


async def test_a_page_that_one_process_began_another_can_go_on_with(store: Store) -> None:
    async with two(store) as (one, other):
        for n in range(6):
            await one.create(new_flow(f"f{n}"))
        first, after = await one.list(FlowFilter(), limit=3)

        second, _ = await other.list(FlowFilter(), limit=3, after=after)

        assert ids(first + second) == [f"f{n}" for n in reversed(range(6))]


@pytest.mark.parametrize("what", ["create", "send", "end"])
async def test_a_listener_hears_of_what_another_process_did(store: Store, what: str) -> None:
    async with two(store) as (one, other):
        await register(other)
        lease = await claimed_flow(other)
        heard: list[Hint] = []
        one.subscribe(heard.append)

        if what == "create":
            await other.create(new_flow("f2"))
        elif what == "send":
            await other.send(signal("f1"))
        else:
            await settle(other, "f1", lease)

        await until(lambda: any(hint.elsewhere or hint.ready or hint.inbox or hint.settled for hint in heard))


async def test_a_handle_that_closes_takes_nothing_from_the_others(store: Store) -> None:
    async with store.open() as one:
        await register(one)
        lease = await claimed_flow(one)
        async with store.open() as other:
            await other.create(new_flow("f2"))

        await commit(one, Commit("f1", lease, (event(1),)))
        assert await status_of(one, "f2") is TaskStatus.PENDING
