"""A primary dies and its synchronous standby takes over: a log that knows both goes on and has lost nothing it said."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

import asyncpg
import pytest

from ergon import PostgresExecutionLog, Scheduler, Worker, WorkerOptions
from ergon.core.commit import Commit, FlowFilter, FlowRecord
from ergon.errors import LogBusy, LogRefused
from ergon.storage.postgres.address import read_url
from ergon.testing.conformance.kit import claimed_flow, commit, event, new_flow, register, signal, until
from tests.servers import binaries
from tests.servers.postgres import Pair
from tests.storage.postgres.flows import sum_up

SECRET = "s3cret"
QUICK = WorkerOptions(lease_seconds=5.0, poll_seconds=0.2, reap_seconds=0.5, evict_after_seconds=0.1)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Servers that a test may kill."""
    own = Pair()
    yield own
    own.stop()


@pytest.fixture(scope="module")
def lasting() -> Iterator[Pair]:
    """Servers that every test leaves as they were."""
    own = Pair()
    yield own
    own.stop()


class Load:
    """Creates flows and signals them as fast as it is answered, and remembers what was acknowledged."""

    def __init__(self, log: PostgresExecutionLog) -> None:
        self._log = log
        self.created: list[str] = []
        self.told: list[str] = []
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        number = 0
        while True:
            number += 1
            flow_id = f"f{number}"
            assert await self._log.create(new_flow(flow_id, name="nobody's")) is None, (
                "it was not there before"
            )
            self.created.append(flow_id)
            await self._log.send(signal(flow_id))
            self.told.append(flow_id)

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@contextlib.asynccontextmanager
async def loaded(log: PostgresExecutionLog) -> AsyncIterator[Load]:
    load = Load(log)
    try:
        yield load
    finally:
        await load.stop()


async def test_after_a_failover_flows_go_on_and_all_that_was_acknowledged_is_there_once(pair: Pair) -> None:
    async with (
        PostgresExecutionLog(pair.url(), require="D4") as log,
        PostgresExecutionLog(pair.url()) as other,
        Worker(log, flows=[sum_up], options=QUICK),
        loaded(other) as load,
    ):
        scheduler = Scheduler(log)
        handles = [await scheduler.schedule(sum_up.bind(60), id=f"sum-{n}") for n in range(8)]
        await until(lambda: len(load.told) > 20)

        pair.primary.kill()
        before = len(load.told)
        await pair.promote()

        assert [await handle.result() for handle in handles] == [60] * 8
        await until(lambda: len(load.told) > before + 20)
        await load.stop()
        for handle in handles:
            history = await log.history(handle.id)
            assert [(one.seq, one.payload) for one in history] == [(n, str(n)) for n in range(1, 61)]
        for flow_id in load.created:
            assert len(await log.inbox(flow_id)) == 1 or flow_id not in load.told
        assert {flow.id for flow in await all_flows(log)} >= set(load.created)
        assert (await log.durability()).level == "D3", "nobody confirms commits any more"


async def test_a_primary_whose_machine_is_lost_is_given_up_for_the_standby(pair: Pair) -> None:
    """Nothing is cut then, and whoever dials hears nothing."""
    async with PostgresExecutionLog(pair.url(), busy_timeout_seconds=3) as log:
        await register(log)
        lease = await claimed_flow(log)
        await commit(log, Commit("f1", lease, (event(1),)))
        pair.primary.freeze()
        await pair.promote()

        async def is_written() -> bool:
            with contextlib.suppress(LogBusy):
                await commit(log, Commit("f1", lease, (event(2),)))
                return True
            return False

        await until(is_written)

        pair.primary.thaw()
        await log.create(new_flow("f2"))
        assert [one.seq for one in await log.history("f1")] == [1, 2]
        async with PostgresExecutionLog(pair.standby.url()) as promoted:
            assert await promoted.find("f2") is not None


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_commit_whose_wait_for_the_standby_was_cut_short_is_not_acknowledged_before_it_has_it(
    lasting: Pair, how: str
) -> None:
    """The primary then has committed all the same; of one that was cancelled it even says so, with a warning."""
    async with PostgresExecutionLog(lasting.url(options=f"?schema={how}")) as log:
        await register(log)
        lease = await claimed_flow(log)
        watch = await asyncpg.connect(lasting.primary.url())
        lasting.standby.freeze()
        for act in (lambda: commit(log, Commit("f1", lease, (event(1),))), lambda: log.send(signal("f1"))):
            acting = asyncio.create_task(act())

            await until(lambda: _cut_short(watch, how))
            await until(lambda: _waiting(watch))

            assert not acting.done()
            lasting.standby.thaw()
            await acting
            lasting.standby.freeze()
        lasting.standby.thaw()
        await watch.close()
        assert len(await log.history("f1")) == len(await log.inbox("f1")) == 1


async def test_a_log_whose_commits_a_standby_confirms_survives_the_loss_of_the_machine(lasting: Pair) -> None:
    async with PostgresExecutionLog(lasting.url(options="?schema=class"), require="D4") as log:
        assert (await log.durability()).settings["standbys_connected"] == "1"


async def test_of_several_servers_the_one_that_writes_is_found_wherever_it_stands(lasting: Pair) -> None:
    primary, standby = lasting.primary.port, lasting.standby.port
    for hosts in (
        f"127.0.0.1:{standby},127.0.0.1:{primary}",
        f"127.0.0.1:{binaries.free_port()},127.0.0.1:{primary}",
    ):
        async with PostgresExecutionLog(
            f"postgresql://postgres:{SECRET}@{hosts}/postgres?schema=found&target_session_attrs=read-write"
        ) as log:
            assert hosts in log.url
            await log.create(new_flow())
    folders = quote(f"{lasting.standby.folder},{lasting.primary.folder}")
    async with PostgresExecutionLog(
        f"postgresql://postgres@/postgres?host={folders}&port={standby},{primary}&schema=found"
    ) as log:
        await log.create(new_flow())


async def test_a_standby_alone_is_refused_in_one_line(lasting: Pair) -> None:
    url = f"postgresql://postgres:{SECRET}@127.0.0.1:{lasting.standby.port}/postgres"

    with pytest.raises(
        LogRefused, match=r"is a standby, which only reads; name the primary, or all"
    ) as refused:
        await PostgresExecutionLog(url).connect()

    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_while_no_server_writes_the_line_says_why_of_each(lasting: Pair) -> None:
    gone = binaries.free_port()
    hosts = f"127.0.0.1:{gone},127.0.0.1:{lasting.standby.port}"

    with pytest.raises(LogBusy) as refused:
        await PostgresExecutionLog(f"postgresql://postgres:{SECRET}@{hosts}/postgres").connect()

    assert f"127.0.0.1:{gone} cannot be reached" in str(refused.value)
    assert f"127.0.0.1:{lasting.standby.port} only reads" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_database_whose_sessions_only_read_is_refused_in_one_line(lasting: Pair) -> None:
    connection = await asyncpg.connect(lasting.primary.url())
    await connection.execute(
        "ALTER ROLE postgres IN DATABASE template1 SET default_transaction_read_only = on"
    )

    with pytest.raises(LogRefused, match="default_transaction_read_only is on; turn it off"):
        await PostgresExecutionLog(lasting.primary.url("template1")).connect()

    await connection.execute("ALTER ROLE postgres IN DATABASE template1 RESET ALL")
    await connection.close()


@pytest.mark.parametrize(
    "url, said",
    [
        (
            f"postgresql://me:{SECRET}@one,two/x?target_session_attrs=standby",
            "leave it out, or say read-write",
        ),
        (f"postgresql://me:{SECRET}@one,,two/x", "a host without a name"),
        (f"postgresql://me:{SECRET}@/x?host=one,two,three&port=1,2", "one port for each host"),
    ],
)
def test_servers_that_cannot_be_are_refused_without_the_password(url: str, said: str) -> None:
    with pytest.raises(LogRefused, match=said) as refused:
        PostgresExecutionLog(url)

    assert SECRET not in str(refused.value)


def test_each_server_of_a_url_has_an_address_of_its_own() -> None:
    address = read_url(f"postgresql://me:{SECRET}@one:1,[::1]:2,three/x?sslmode=require&schema=s")

    assert [(server.name, server.dsn) for server in address.servers] == [
        ("one:1", "postgresql://one:1/x?sslmode=require"),
        ("[::1]:2", "postgresql://[::1]:2/x?sslmode=require"),
        ("three", "postgresql://three/x?sslmode=require"),
    ]
    assert address.url == "postgresql://me@one:1,[::1]:2,three/x?sslmode=require&schema=s"
    assert SECRET not in repr(address)


async def all_flows(log: PostgresExecutionLog) -> list[FlowRecord]:
    found, after = await log.list(FlowFilter(), limit=1000)
    while after is not None:
        more, after = await log.list(FlowFilter(), limit=1000, after=after)
        found += more
    return found


_OURS = "FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'ergon'"


async def _cut_short(watch: asyncpg.Connection, how: str) -> bool:
    return bool(await watch.fetchval(f"SELECT count(pg_{how}_backend(pid)) {_OURS}"))


async def _waiting(watch: asyncpg.Connection) -> bool:
    return bool(await watch.fetchval(f"SELECT count(*) {_OURS}"))
