"""What is wrong is said in one line that names what to change, and never the password."""

from __future__ import annotations

import pytest
import redis

from ergon import open_log
from ergon.core.status import TaskStatus
from ergon.errors import LogBusy, LogClosed, LogDamaged, LogRefused, LogTooNew
from ergon.storage.redis import RedisExecutionLog, connection
from tests.servers.binaries import free_port
from tests.servers.redis import server, server_url
from tests.storage.kit import new_flow, register, status_of, until

SECRET = "s3cret-word"


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@host",
        f"redis://user:{SECRET}@host:port/0",
        f"redis://:{SECRET}/more@host/0",
        f"redis://:12?{SECRET}@host/0",
        f"redis://:{SECRET}@host/first",
        f"redis://:{SECRET}@host/0?prefx=orders",
        f"redis://:{SECRET}@host/0?ephemeral=perhaps",
        f"redis://:{SECRET}@host/0?replicas=some",
        f"redis://:{SECRET}@host/0?flushed=perhaps",
        f"redis://:{SECRET}@host/0?prefix=a{{b}}",
        f"redis://:{SECRET}@host/0?prefix=",
        f"rediss://:{SECRET}@host/0?ssl_cert_reqs=maybe",
        f"redis://:{SECRET}@host/0#part",
        f"redis://:{SECRET}@host:0/0",
        "",
    ],
)
def test_a_url_that_is_none_is_refused_in_one_line_without_its_password(url):
    with pytest.raises(LogRefused) as refused:
        RedisExecutionLog(url)

    assert SECRET not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "url, shown",
    [
        (f"redis://me:{SECRET}@host", "redis://me@host:6379/0"),
        (f"rediss://:{SECRET}@host:7000/3?prefix=shop", "rediss://host:7000/3?prefix=shop"),
        (f"valkey://:{SECRET}@[::1]/", "valkey://[::1]:6379/0"),
        (f"redis://:{SECRET}@host/0?flushed=1&replicas=2", "redis://host:6379/0?replicas=2&flushed=true"),
        (f"unix://me:{SECRET}@/run/a%20b.sock?db=2&ephemeral=yes", "unix://me@/run/a%20b.sock?db=2&ephemeral=true"),
    ],
)  # fmt: skip
def test_the_url_of_a_log_names_it_to_another_process_without_the_password(url, shown):
    log = open_log(url)

    assert log.url == shown
    assert open_log(log.url).url == shown
    assert SECRET not in repr(log) + repr(vars(log))


def test_a_password_may_hold_any_character():
    log = RedisExecutionLog("redis://me:a%2Fb%40c%3Fd%23e%25@host")

    assert log._settings.password == "a/b@c?d#e%"


async def test_a_server_that_is_not_there_is_named_with_what_to_check():
    log = RedisExecutionLog(f"redis://me:{SECRET}@127.0.0.1:{free_port()}/0")

    with pytest.raises(LogBusy, match="cannot be reached; check that it runs, and the URL") as refused:
        await log.connect()

    assert SECRET not in str(refused.value)
    assert "127.0.0.1" in str(refused.value)
    with pytest.raises(LogClosed):
        await log.find("f1")


@pytest.mark.parametrize("scheme, plain", [("rediss", "redis"), ("valkeys", "valkey")])
async def test_a_server_without_tls_asked_over_tls_is_named_with_the_scheme_it_wants(
    own_server, monkeypatch, scheme, plain
):
    """It does not answer what it does not understand."""
    monkeypatch.setattr(connection, "CONNECT_SECONDS", 0.5)
    with pytest.raises(LogBusy, match=rf"\({plain}:// where a server speaks no TLS\)"):
        await RedisExecutionLog(f"{scheme}://127.0.0.1:{own_server.port}/0").connect()


async def test_a_wrong_password_is_refused_at_once_and_not_told(server_with):
    locked = server_with("--appendonly", "no", "--requirepass", "right")

    with pytest.raises(LogRefused, match="neither this user nor this password; correct the URL") as refused:
        await RedisExecutionLog(f"redis://:{SECRET}@127.0.0.1:{locked.port}/0").connect()
    assert SECRET not in str(refused.value)
    with pytest.raises(LogRefused, match="password"):
        await RedisExecutionLog(f"redis://127.0.0.1:{locked.port}/0").connect()
    async with RedisExecutionLog(f"redis://:right@127.0.0.1:{locked.port}/0", ephemeral=True) as log:
        assert await log.create(new_flow("f1")) is None


@pytest.mark.parametrize(
    "options, named",
    [
        (("--appendonly", "no", "--save", ""), "appendonly yes"),
        (("--appendonly", "no", "--save", "60 1"), "appendonly yes"),
        (
            ("--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"),
            r"noeviction \(it is allkeys-lru",
        ),
    ],
    ids=["nothing", "snapshots", "eviction"],
)
async def test_a_server_that_would_lose_flows_is_refused_unless_that_is_meant(server_with, options, named):
    url = server_with(*options).url

    with pytest.raises(LogRefused, match=named) as refused:
        await RedisExecutionLog(url).connect()
    assert "ephemeral=True" in str(refused.value)
    async with open_log(f"{url}?ephemeral=true") as log:
        assert (await log.durability()).level == "D1"


async def test_a_server_that_may_lose_flows_and_is_to_flush_them_is_refused():
    with pytest.raises(LogRefused, match="ephemeral and flushed exclude each other"):
        await RedisExecutionLog(server_url(), ephemeral=True, flushed=True).connect()


async def test_a_replica_is_refused(own_server, server_with):
    replica = server_with("--replicaof", "127.0.0.1", str(own_server.port))

    with pytest.raises(LogRefused, match="is a replica and takes no writes; name the master"):
        await RedisExecutionLog(replica.url, ephemeral=True).connect()


async def test_keys_of_another_program_are_left_alone(prefix):
    with redis.Redis.from_url(server_url()) as client:
        client.set(f"{{{prefix}:0}}:meta", "mine")

        with pytest.raises(LogRefused, match="another program's; name another prefix"):
            await RedisExecutionLog(server_url(), prefix=prefix, ephemeral=True).connect()
        assert client.get(f"{{{prefix}:0}}:meta") == b"mine"
        client.delete(f"{{{prefix}:0}}:meta")
        client.hset(f"{{{prefix}:0}}:meta", "owner", "me")
        with pytest.raises(LogRefused, match="another program's"):
            await RedisExecutionLog(server_url(), prefix=prefix, ephemeral=True).connect()


async def test_a_log_of_a_newer_ergon_is_left_alone_unless_it_says_that_this_one_may_use_it(log, prefix):
    await log.close()
    meta = f"{{{prefix}:0}}:meta"
    with redis.Redis.from_url(server_url()) as client:
        client.hset(meta, mapping={"schema": 2, "compatible_from": 1})
        async with log:
            assert await log.create(new_flow("f1")) is None
        for newer in ({"schema": 2, "compatible_from": 2}, {"schema": 3, "compatible_from": 1}):
            client.hset(meta, mapping=newer)
            with pytest.raises(LogTooNew, match="upgrade this process"):
                await log.connect()


async def test_rights_that_are_missing_are_named(own_server):
    with own_server.client() as client:
        client.acl_setuser(
            "reader", enabled=True, passwords=["+x"], categories=["+@read", "+@connection"], keys=["*"]
        )
        client.acl_setuser("reader", enabled=True, passwords=["+x"], commands=["+info"])

    with pytest.raises(LogRefused, match=r"access list refuses .* grant what the guide on Redis lists"):
        await RedisExecutionLog(f"redis://reader:x@127.0.0.1:{own_server.port}/0").connect()


async def test_a_log_that_was_emptied_while_it_was_open_refuses_every_write(own_server):
    async with RedisExecutionLog(own_server.url) as log:
        await log.create(new_flow("f1"))
        with own_server.client() as client:
            client.flushall()

        with pytest.raises(LogDamaged, match=r"is empty now \(FLUSHALL"):
            await log.create(new_flow("f2"))
        with pytest.raises(LogDamaged):
            await log.inbox("f1")
    async with RedisExecutionLog(own_server.url) as log:
        assert await log.create(new_flow("f1")) is None


async def test_another_log_in_the_place_of_the_one_that_was_opened_is_told_apart(own_server):
    async with RedisExecutionLog(own_server.url) as log:
        with own_server.client() as client:
            client.flushall()
        async with RedisExecutionLog(own_server.url) as other:
            await other.create(new_flow("f1"))

            with pytest.raises(LogDamaged, match="another log is in its place"):
                await log.create(new_flow("f1"))
            assert log.generation != other.generation


async def test_a_key_that_somebody_changed_concerns_its_flow_alone(log, prefix):
    await log.create(new_flow("sound"))
    await log.create(new_flow("bad"))
    with redis.Redis.from_url(server_url()) as client:
        client.hset(f"{{{prefix}:0}}:flow:bad", "input", b"\xff\xfe")

    with pytest.raises(LogDamaged, match="flow 'bad' is damaged") as damaged:
        await log.find("bad")
    assert damaged.value.flow_id == "bad"
    assert (await log.find("sound")) is not None


async def test_a_unix_socket_serves_as_well():
    url = f"unix://{server().socket}?ephemeral=true&prefix=socket"
    async with open_log(url) as log:
        assert (await log.durability()).settings["mode"] == "one server"


async def test_a_record_of_a_worker_that_somebody_changed_keeps_no_other_worker_from_being_reaped(
    log, prefix
):
    """Nor its own flows from going on: whether its lease has run out is told without the record."""
    await register(log, "changed", lease_seconds=0.001)
    await register(log, "dead", lease_seconds=0.001)
    await log.create(new_flow("f1", owner="changed"))
    with redis.Redis.from_url(server_url()) as client:
        client.hset(f"{{{prefix}:0}}:worker:changed", "record", "{")

    async def is_free() -> bool:
        await log.reap()
        return await status_of(log, "f1") is TaskStatus.PENDING

    await until(is_free)
    assert {worker.id: worker.state for worker in await log.workers()} == {"dead": "dead", "changed": "dead"}
