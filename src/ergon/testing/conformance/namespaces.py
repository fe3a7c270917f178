"""Two namespaces of one place are strangers: what one holds, the other has never heard of."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ergon.core.commit import Commit, FlowFilter, Hint
from ergon.core.namespaces import NAMESPACE_CHARS_MAX
from ergon.core.status import TaskStatus
from ergon.errors import FlowNotFound, InvalidName, LeaseLost
from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.kit import (
    claim,
    claim_one,
    claimed_flow,
    commit,
    event,
    ids,
    kill_worker,
    new_flow,
    register,
    settle,
    signal,
    status_of,
    until,
)
from ergon.testing.conformance.store import Store


@asynccontextmanager
async def strangers(store: Store) -> AsyncIterator[tuple[ExecutionLog, ExecutionLog]]:
    """Two namespaces, connected."""
    async with store.open("acme") as acme, store.open("globex") as globex:
        yield acme, globex


async def test_a_flow_of_one_namespace_is_not_in_another(store: Store) -> None:
    async with strangers(store) as (acme, globex), store.open() as plain:
        await acme.create(new_flow("f1"))

        for other in (globex, plain):
            assert await other.find("f1") is None
            assert await other.list(FlowFilter()) == ([], None)
            assert await other.count(FlowFilter()) == {}


async def test_one_id_names_another_flow_in_each_namespace(store: Store) -> None:
    async with strangers(store) as (acme, globex), store.open() as plain:
        for log, name in ((acme, "a"), (globex, "g"), (plain, "p")):
            assert await log.create(new_flow("f1", name=name)) is None

        for log, name in ((acme, "a"), (globex, "g"), (plain, "p")):
            found = await log.find("f1")
            assert found is not None
            assert found.name == name


async def test_a_worker_claims_nothing_of_another_namespace_from_a_queue_of_the_same_name(
    store: Store,
) -> None:
    async with strangers(store) as (acme, globex):
        await acme.create(new_flow("a1"))
        await globex.create(new_flow("g1"))
        await register(acme)
        await register(globex)

        assert ids(await claim(globex)) == ["g1"]
        assert await claim(globex) == []
        assert await status_of(acme, "a1") is TaskStatus.PENDING
        assert await globex.next_wake(["order"]) is None


async def test_a_worker_of_one_namespace_is_unknown_in_another(store: Store) -> None:
    async with strangers(store) as (acme, globex):
        await register(acme)
        await globex.create(new_flow("g1"))

        assert await globex.workers() == []
        with pytest.raises(LeaseLost):
            await globex.renew("w1", lease_seconds=30)
        with pytest.raises(LeaseLost):
            await claim(globex)


async def test_the_death_of_a_worker_takes_nothing_from_its_namesake_in_another_namespace(
    store: Store,
) -> None:
    async with strangers(store) as (acme, globex):
        for log in (acme, globex):
            await register(log)
        lease = await claimed_flow(acme)
        await claimed_flow(globex)

        await kill_worker(globex, "w1")

        await commit(acme, Commit("f1", lease, (event(1),)))
        assert await status_of(acme, "f1") is TaskStatus.RUNNING
        assert await status_of(globex, "f1") is TaskStatus.PENDING


async def test_a_lease_of_one_namespace_is_none_in_another(store: Store) -> None:
    async with strangers(store) as (acme, globex):
        await register(acme)
        lease = await claimed_flow(acme)
        await globex.create(new_flow("f1"))

        with pytest.raises(LeaseLost):
            await commit(globex, Commit("f1", lease, (event(1),)))
        with pytest.raises(LeaseLost):
            await settle(globex, "f1", lease)

        assert await globex.history("f1") == []
        assert await status_of(globex, "f1") is TaskStatus.PENDING


async def test_a_signal_reaches_the_flow_of_its_own_namespace_only(store: Store) -> None:
    async with strangers(store) as (acme, globex):
        for log in (acme, globex):
            await log.create(new_flow("f1"))
        await acme.create(new_flow("only-there"))

        await globex.send(signal("f1", payload='"for globex"', key="k"))

        assert [message.payload for message in await globex.inbox("f1")] == ['"for globex"']
        assert await acme.inbox("f1") == []
        assert not await acme.has_key(signal("f1", key="k"))
        with pytest.raises(FlowNotFound):
            await globex.send(signal("only-there"))


async def test_a_signal_of_another_namespace_wakes_nobody(store: Store) -> None:
    async with strangers(store) as (acme, globex):
        for log in (acme, globex):
            await register(log)
            await settle(log, "f1", await claimed_flow(log), TaskStatus.SUSPENDED)

        await globex.send(signal("f1"))

        assert (await claim_one(globex, "f1")).lease.claims == 2
        assert await claim(acme) == []
        assert await status_of(acme, "f1") is TaskStatus.SUSPENDED


async def test_what_happens_in_one_namespace_is_no_news_in_another(store: Store) -> None:
    """Word of the own namespace comes in the end; whatever the other one told came before it."""
    async with strangers(store) as (acme, globex):
        heard: list[Hint] = []
        globex.subscribe(heard.append)
        await register(acme)

        lease = await claimed_flow(acme)
        await acme.send(signal("f1"))
        await settle(acme, "f1", lease)
        await globex.create(new_flow("f2"))
        await globex.send(signal("f2"))

        await until(lambda: any("f2" in hint.inbox for hint in heard))
        assert not any("f1" in hint.inbox or "f1" in hint.settled for hint in heard)


async def test_what_is_deleted_in_one_namespace_stays_in_another(store: Store) -> None:
    async with strangers(store) as (acme, globex):
        for log in (acme, globex):
            await log.create(new_flow("f1"))
            await log.move("f1", TaskStatus.CANCELLED)

        assert await globex.delete("f1") is True

        assert await status_of(acme, "f1") is TaskStatus.CANCELLED


async def test_namespaces_have_names_of_their_own_for_other_processes(store: Store) -> None:
    async with strangers(store) as (acme, globex), store.open() as plain:
        assert len({acme.url, globex.url, plain.url}) == 3
        assert "namespace=acme" in acme.url
        assert "namespace=" not in plain.url


async def test_the_longest_and_the_oddest_names_are_namespaces_of_their_own(store: Store) -> None:
    names = ("7", "team-7", "team_7", "x" * NAMESPACE_CHARS_MAX)
    for number, name in enumerate(names):
        async with store.open(name) as log:
            assert await log.create(new_flow("f1", queue=f"q{number}")) is None


async def test_a_namespace_that_some_log_could_not_keep_apart_is_refused_in_one_line(store: Store) -> None:
    for name in ("Acme", "a__b", "a.b", "a/b", "a:b", "..", "a\n", "x" * (NAMESPACE_CHARS_MAX + 1)):
        with pytest.raises(InvalidName, match="namespace=") as refused:
            store.open(name)

        assert "\n" not in str(refused.value)
