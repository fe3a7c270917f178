"""One server and its replica change places: writes wait for the master, and are done once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis.exceptions as said

from ergon.core.commit import Commit, Hint, Message, MessageKind
from ergon.errors import LogBusy, LogFull, StoreError
from ergon.storage.redis import RedisExecutionLog
from ergon.storage.redis.connection import TRUST_SECONDS
from ergon.storage.redis.errors import is_cut, is_lost, is_not_done, is_replica, translate
from tests.servers.redis import ALWAYS, RedisServer, running
from tests.servers.tap import Tap
from tests.storage.kit import claim_one, claimed_flow, commit, event, new_flow, register, until

AT_ONCE = (*ALWAYS, "--repl-diskless-sync-delay", "0")
"""Whoever becomes a replica is brought up to date without waiting for others."""
Pair = tuple[RedisServer, RedisServer]


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    """A master, and its replica."""
    with running(*AT_ONCE) as one, running(*AT_ONCE, "--replicaof", f"127.0.0.1 {one.port}") as other:
        await until(lambda: has_synced(other))
        yield one, other


@pytest.mark.parametrize("replicas", [0, 1])
async def test_a_write_to_a_master_that_has_become_a_replica_waits_until_a_master_takes_it(
    pair, prefix, replicas
):
    one, other = pair
    async with RedisExecutionLog(one.url, prefix=prefix, replicas=replicas) as log:
        await register(log)
        lease = await claimed_flow(log, "f1")
        follow(other, None)
        follow(one, other)
        await until(lambda: has_synced(one))

        writing = asyncio.create_task(commit(log, Commit("f1", lease, (event(1),))))
        await until(lambda: refusals(one) > 2)
        assert not writing.done()
        follow(one, None)
        follow(other, one)
        await writing

        assert [one.seq for one in await log.history("f1")] == [1]


async def test_a_write_that_its_master_forgets_while_it_waits_for_a_replica_is_sent_again(pair, prefix):
    one, other = pair
    async with RedisExecutionLog(one.url, prefix=prefix, replicas=1) as log:
        await register(log)
        lease = await claimed_flow(log, "f1")
        follow(other, None)
        writing = asyncio.create_task(commit(log, Commit("f1", lease, (event(1),))))
        await until(lambda: waiting_clients(one))
        follow(one, other)  # which never had the write
        await until(lambda: has_synced(one))
        assert not has_key(one, prefix, ":events:f1")
        assert not writing.done()
        follow(one, None)
        follow(other, one)
        await writing

        assert [one.seq for one in await log.history("f1")] == [1]


@pytest.mark.parametrize("readers", [0, 8])
@pytest.mark.parametrize("replicas", [0, 1])
async def test_an_address_that_leads_to_the_new_master_is_followed(pair, prefix, replicas, readers):
    """The old one has stopped listening to anybody, answers every read, and closes no connection."""
    one, other = pair
    async with Tap(one.port) as tap:
        url = f"redis://127.0.0.1:{tap.port}/0"
        async with RedisExecutionLog(url, prefix=prefix, replicas=replicas) as log:
            await register(log)
            lease = await claimed_flow(log, "f1")
            reading = [asyncio.create_task(read_on(log)) for _ in range(readers)]
            follow(other, None)
            be_stale(one)
            with running(*AT_ONCE, "--replicaof", f"127.0.0.1 {other.port}") as third:
                await until(lambda: has_synced(third))
                tap.lead_to(other.port)
                await commit(log, Commit("f1", lease, (event(1),)))

                await until(lambda: is_seen_by_all(log, 2 * readers + 1))
            for task in reading:
                task.cancel()
            ended = await asyncio.gather(*reading, return_exceptions=True)
            assert [type(how) for how in ended] == [asyncio.CancelledError] * readers, "reads are asked again"


async def test_a_program_that_only_reads_finds_the_new_master_too(pair, prefix):
    one, other = pair
    async with (
        Tap(one.port) as tap,
        RedisExecutionLog(f"redis://127.0.0.1:{tap.port}/0", prefix=prefix) as looking,
    ):
        await looking.create(new_flow("f1"))
        await until(lambda: has_key(other, prefix, ":flow:f1"))
        follow(other, None)
        be_stale(one)
        tap.lead_to(other.port)
        async with RedisExecutionLog(other.url, prefix=prefix) as log:
            await register(log)
            await commit(log, Commit("f1", (await claim_one(log, "f1")).lease, (event(1),)))

            await asyncio.sleep(TRUST_SECONDS)

            assert await is_seen_by_all(looking, 24), "on new connections too"


async def test_what_others_change_at_the_new_master_is_heard_there(pair, prefix):
    one, other = pair
    heard: list[Hint] = []
    async with (
        Tap(one.port) as tap,
        RedisExecutionLog(f"redis://127.0.0.1:{tap.port}/0", prefix=prefix) as listening,
    ):
        listening.subscribe(heard.append)
        await listening.create(new_flow("f1"))
        await until(lambda: has_key(other, prefix, ":flow:f1"))
        follow(other, None)
        be_stale(one)
        tap.lead_to(other.port)
        await asyncio.sleep(TRUST_SECONDS)
        assert await listening.find("f1") is not None
        await until(lambda: listeners(other))
        heard.clear()
        async with RedisExecutionLog(other.url, prefix=prefix) as log:
            await log.create(new_flow("f2"))

            await until(lambda: heard)


def listeners(server: RedisServer) -> int:
    """How many clients listen to what is published."""
    with server.client() as client:
        return sum(int(one["sub"]) for one in client.client_list())


async def is_seen_by_all(log: RedisExecutionLog, count: int) -> bool:
    """Whether so many reads at once all see the event."""
    found = await asyncio.gather(*(log.history("f1") for _ in range(count)))
    return [[one.seq for one in history] for history in found] == [[1]] * count


async def read_on(log: RedisExecutionLog) -> None:
    while True:
        assert await log.find("f1") is not None


async def test_a_server_that_stays_a_replica_makes_the_log_busy_and_parks_no_flow(pair, prefix):
    one, other = pair
    async with RedisExecutionLog(one.url, prefix=prefix, busy_timeout_seconds=0.2) as log:
        follow(other, None)
        follow(one, other)

        with pytest.raises(
            LogBusy, match="is a replica by now and takes no writes; they go on once its address"
        ):
            await log.create(new_flow("f1"))


async def test_a_message_that_may_have_been_kept_is_told_so_whatever_the_server_says_later(pair, prefix):
    """Its answer is lost, and from then on the server refuses to do anything at all."""
    one, other = pair
    async with Tap(one.port) as tap:
        url = f"redis://127.0.0.1:{tap.port}/0"
        async with RedisExecutionLog(url, prefix=prefix, busy_timeout_seconds=1.0) as log:
            await log.create(new_flow("f1"))
            await until(lambda: has_key(other, prefix, ":flow:f1"))
            follow(other, None)
            tap.lose_answers()
            sending = asyncio.create_task(log.send(Message("f1", MessageKind.SIGNAL, "go", "1", None)))
            await until(lambda: tap.lost_answers)
            follow(one, other)  # which never had the message
            await until(lambda: has_synced(one))
            tap.heal()

            with pytest.raises(StoreError, match="whether this was written is unknown"):
                await sending


@pytest.mark.parametrize(
    "text",
    [
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        "WAIT cannot be used with replica instances. Please also note that writes to replicas are just local",
        "WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just local",
    ],
)
def test_what_is_said_in_place_of_a_confirmation_tells_nothing_of_the_write(text):
    error = said.ResponseError(text)

    assert is_lost(error)
    assert is_replica(error)
    assert not is_cut(error)
    assert not is_not_done(error)
    assert not is_lost(said.ResponseError(f"a script says: {text}"))
    assert "TLS" not in str(translate(error, "rediss://host"))


@pytest.mark.parametrize(
    "word, kind", [("READONLY", LogBusy), ("OOM", LogFull), ("MISCONF", LogFull), ("NOREPLICAS", LogBusy)]
)
def test_an_error_inside_a_script_is_known_as_redis_6_tells_it(word, kind):
    text = f"Error running script (call to f_0b56): @user_script:580: @user_script: 580: -{word} You can't write here"
    error = said.ResponseError(text)

    assert isinstance(translate(error, "redis://host"), kind)
    assert is_not_done(error) == (kind is LogBusy)
    assert is_replica(error) == (word == "READONLY")
    assert not is_lost(error)


def follow(server: RedisServer, master: RedisServer | None) -> None:
    """Let a server be a replica of another, which has all it has, or a master."""
    with server.client() as client:
        if master is None:
            client.replicaof("NO", "ONE")
        else:
            client.replicaof("127.0.0.1", str(master.port))


def be_stale(server: RedisServer) -> None:
    """Let a server be a replica of nobody there."""
    with server.client() as client:
        client.replicaof("127.0.0.1", "1")


def has_synced(server: RedisServer) -> bool:
    """Whether a replica has what its master has."""
    with server.client() as client:
        return bool(client.info("replication").get("master_link_status") == "up")


def has_key(server: RedisServer, prefix: str, end: str) -> bool:
    """Whether a server has a key of the log that ends like this."""
    with server.client() as client:
        return any(f"{prefix}:" in key and key.endswith(end) for key in client.scan_iter(count=1_000))


def waiting_clients(server: RedisServer) -> int:
    """How many wait for a replica to confirm a write."""
    with server.client() as client:
        return int(client.info("clients")["blocked_clients"])


def refusals(server: RedisServer) -> int:
    """How many writes, or confirmations of writes, the server refused."""
    with server.client() as client:
        counts = client.info("commandstats")
        return sum(
            int(counts.get(f"cmdstat_{command}", {}).get(how, 0))
            for command in ("evalsha", "wait")
            for how in ("rejected_calls", "failed_calls")
        )
