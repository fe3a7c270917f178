"""What cannot be a log is refused with one line that names what to change, and never shows a password."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from urllib.parse import urlsplit

import pytest

from ergon import PostgresExecutionLog, open_log
from ergon.core.commit import Commit
from ergon.errors import LogBusy, LogRefused, LogTooNew, StoreError
from ergon.storage.postgres.address import read_url
from ergon.storage.postgres.durability import check, grade
from ergon.testing.conformance.kit import claim_one, commit, event, new_flow, register
from tests.servers import binaries, postgres
from tests.storage.postgres.conftest import database_of

SECRET = "s3cret@:/?#%"
QUOTED = "s3cret%40%3A%2F%3F%23%25"


async def refusal(log: PostgresExecutionLog) -> StoreError:
    with pytest.raises(StoreError) as refused:
        await log.connect()
    text = str(refused.value)
    assert "\n" not in text
    assert "s3cret" not in text
    assert "s3cret" not in repr(refused.value.__cause__)
    await log.close()
    return refused.value


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{QUOTED}@db.example:99999/orders",
        f"postgresql://me:{QUOTED}@db.example:port/orders",
        f"postgresql://me:{SECRET}@db.example/orders",
        "postgresql://me:12/s3cret@db.example/orders",
        "postgresql://me:12?a=s3cret@db.example/orders",
        f"postgresql://me:{QUOTED}@[::1/orders",
        f"postgresql://me:{QUOTED}@db.example/orders?pgbouncer=perhaps",
        f"postgresql://me:{QUOTED}@db.example/orders?schema=",
        f"postgresql://me:{QUOTED}@db.example/orders?schema=pg_catalog",
        f"postgresql://me:{QUOTED}@db.example/orders?schema={'x' * 64}",
        f"postgresql://me:{QUOTED}@db.example/orders?schema={'x' * 58}&namespace=acme",
        f"mysql://me:{QUOTED}@db.example/orders",
    ],
)
def test_a_url_that_cannot_be_is_refused_without_its_password(url):
    with pytest.raises(LogRefused) as refused:
        PostgresExecutionLog(url)

    assert "s3cret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_log_shows_where_it_is_and_no_secret():
    log = open_log(
        f"postgres://me:{QUOTED}@db.example:5433/orders?sslmode=require&password={QUOTED}&sslpassword={QUOTED}&schema=jobs"
    )

    assert log.url == "postgresql://me@db.example:5433/orders?sslmode=require&schema=jobs"
    assert "s3cret" not in repr(log)
    address = read_url(f"postgresql://me:{QUOTED}@db.example/orders")
    assert "s3cret" not in repr(address)
    assert address.password == SECRET
    assert open_log(log.url).url == log.url


async def test_a_server_that_is_not_there(url):
    gone = f"postgresql://postgres:{QUOTED}@127.0.0.1:{binaries.free_port()}/orders"

    error = await refusal(PostgresExecutionLog(gone))

    assert isinstance(error, LogBusy)
    assert "check host and port" in str(error)


async def test_a_host_that_does_not_answer():
    """A network may drop what it does not let through."""
    silent = socket.create_server(("127.0.0.1", 0))  # nobody accepts
    port = silent.getsockname()[1]
    started = time.monotonic()

    error = await refusal(
        PostgresExecutionLog(f"postgresql://me:{QUOTED}@127.0.0.1:{port}/x", busy_timeout_seconds=0.5)
    )

    assert "no answer" in str(error)
    assert time.monotonic() - started < 20
    silent.close()


async def test_a_wrong_password(own_url):
    await postgres.execute(
        own_url,
        "DO $$ BEGIN CREATE ROLE locked LOGIN PASSWORD 'right'; EXCEPTION WHEN duplicate_object THEN END $$",
    )
    port = postgres.server().port
    url = f"postgresql://locked:{QUOTED}@127.0.0.1:{port}/{database_of(own_url)}"

    assert "check the user, its password" in str(await refusal(PostgresExecutionLog(url)))


async def test_a_database_that_does_not_exist(url):
    parts = urlsplit(url)

    error = await refusal(PostgresExecutionLog(parts._replace(path="/nowhere").geturl()))

    assert "no such database; create it" in str(error)


async def test_an_option_that_the_server_does_not_know(url):
    error = await refusal(PostgresExecutionLog(f"{url}&connect_timeout=5", require="D1"))

    assert "an option that neither the driver nor the server knows" in str(error)
    assert "connect_timeout" in str(error)


@pytest.mark.parametrize("option", ["sslmode=perhaps", "sslmode=verify-full"])
async def test_what_is_wrong_with_an_option_is_told(option, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)

    error = await refusal(PostgresExecutionLog(f"postgresql://me:{QUOTED}@127.0.0.1:1/orders?{option}"))

    assert "`sslmode` parameter must be" in str(error) or "root certificate file" in str(error)


async def test_a_certificate_that_is_not_there_is_told():
    url = f"postgresql://me:{QUOTED}@127.0.0.1:1/orders?sslmode=verify-full&sslrootcert=/nowhere.pem"

    assert "check that the server runs and its socket's folder (host=), or the certificates" in str(
        await refusal(PostgresExecutionLog(url))
    )


async def test_a_role_without_rights_hears_which(own_url):
    await _role(own_url)
    with_role = own_url.replace("postgres@", "plain@")
    assert "CREATE on the database" in str(await refusal(PostgresExecutionLog(with_role, require="D1")))
    async with PostgresExecutionLog(own_url, require="D1"):
        pass
    assert "USAGE" in str(await refusal(PostgresExecutionLog(with_role, require="D1")))

    await postgres.execute(
        own_url,
        "GRANT USAGE ON SCHEMA ergon TO plain",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ergon TO plain",
    )

    async with PostgresExecutionLog(with_role, require="D1", migrate=False) as log:
        await register(log)
        await log.create(new_flow("f1"))
        lease = (await claim_one(log, "f1")).lease
        await commit(log, Commit("f1", lease, (event(1),)))


async def test_a_role_that_may_make_nothing_needs_no_option_once_the_tables_are_there(own_url):
    """Who made them, and with which rights by default, is another role's affair."""
    await _role(own_url)
    async with PostgresExecutionLog(own_url, require="D1"):
        pass
    await postgres.execute(
        own_url,
        "GRANT USAGE ON SCHEMA ergon TO plain",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ergon TO plain",
    )

    async with PostgresExecutionLog(own_url.replace("postgres@", "plain@"), require="D1") as log:
        assert await log.create(new_flow("f1")) is None


async def test_the_schema_of_everybody_can_be_a_log_where_a_role_may_make_tables_in_it(own_url):
    """From PostgreSQL 15 on not everybody may."""
    await _role(own_url)
    with_role = own_url.replace("postgres@", "plain@") + "&schema=public"
    await postgres.execute(own_url, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")

    assert "CREATE on the database, or on schema 'public'" in str(
        await refusal(PostgresExecutionLog(with_role, require="D1"))
    )
    await postgres.execute(own_url, "GRANT CREATE ON SCHEMA public TO plain")

    async with PostgresExecutionLog(with_role, require="D1") as log:
        assert await log.create(new_flow("f1")) is None


async def test_without_the_right_to_migrate_missing_tables_are_told(url):
    error = await refusal(PostgresExecutionLog(url, require="D1", migrate=False))

    assert "no tables of Ergon's" in str(error)
    assert "as a role that may" in str(error)


async def test_a_schema_of_another_program_is_left_alone(url):
    await postgres.execute(url, "CREATE SCHEMA ergon", "CREATE TABLE ergon.theirs (x int)")
    assert "another program" in str(await refusal(PostgresExecutionLog(url, require="D1")))

    await postgres.execute(url, "CREATE SCHEMA their", "CREATE TABLE their.meta (about text)")
    assert "another program" in str(await refusal(PostgresExecutionLog(url, require="D1", schema="their")))


async def test_a_newer_schema_is_refused_unless_it_is_the_next_one_and_says_that_this_version_may(url):
    async with PostgresExecutionLog(url, require="D1"):
        pass
    await postgres.execute(url, "UPDATE ergon.meta SET value = '2' WHERE key = 'schema_version'")
    async with PostgresExecutionLog(url, require="D1") as log:
        await log.create(new_flow())

    await postgres.execute(url, "UPDATE ergon.meta SET value = '2' WHERE key = 'compatible_from'")

    error = await refusal(PostgresExecutionLog(url, require="D1"))
    assert isinstance(error, LogTooNew)
    assert "upgrade this process" in str(error)


async def test_a_server_without_fsync_has_to_be_meant(own_url):
    assert "set fsync=on, or say" in str(await refusal(PostgresExecutionLog(own_url)))
    assert "D2, D3 is required" in str(await refusal(PostgresExecutionLog(own_url, require="D3")))
    async with PostgresExecutionLog(own_url, require="D2") as log:
        assert (await log.durability()).level == "D2"


SAFE = {
    "server_version": "18",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "synchronous_standby_names": "",
    "standbys_connected": "0",
}


@pytest.mark.parametrize(
    "changes, level, said",
    [
        ({}, "D3", "lost with its machine"),
        ({"standbys_connected": "2"}, "D3", "behind time"),
        ({"synchronous_standby_names": "one", "standbys_connected": "1"}, "D4", ""),
        ({"synchronous_standby_names": "one", "synchronous_commit": "remote_apply"}, "D4", ""),
        ({"synchronous_standby_names": "one", "synchronous_commit": "remote_write"}, "D3", "in memory"),
        ({"synchronous_commit": "off"}, "D1", "synchronous_commit=off"),
        ({"full_page_writes": "off"}, "D2", "full_page_writes=off"),
        ({"fsync": "off", "synchronous_standby_names": "one"}, "D2", "fsync=off"),
    ],
)
def test_what_the_settings_survive(changes, level, said):
    graded = grade({**SAFE, **changes})

    assert graded.level == level
    assert said in "; ".join(graded.limits)
    check(graded, level, "here") if graded.settings["fsync"] == "on" else None
    if level < "D4":
        with pytest.raises(LogRefused, match="is required"):
            check(graded, "D4", "here")


async def test_commits_wait_for_the_disk_whatever_the_server_defaults_to(own_url):
    await postgres.execute(own_url, f"ALTER DATABASE {database_of(own_url)} SET synchronous_commit = off")

    async with PostgresExecutionLog(own_url, require="D1") as log:
        assert (await log.durability()).settings["synchronous_commit"] == "on"


@pytest.mark.parametrize(
    "schema", ["jobs", "Größe", 'a"b; DROP SCHEMA x', "select", "a.b", "$1", "ergon', public"]
)
async def test_any_name_can_be_a_schema_and_each_is_a_log_of_its_own(url, schema):
    async with (
        PostgresExecutionLog(url, require="D1", schema=schema) as one,
        PostgresExecutionLog(url, require="D1") as other,
    ):
        await one.create(new_flow("f1"))

        assert await one.find("f1") is not None
        assert await other.find("f1") is None
        assert one.generation != other.generation
        async with open_log(one.url, require="D1") as same:
            assert await same.find("f1") is not None


async def test_several_processes_may_open_a_new_log_at_once(url):
    logs = [PostgresExecutionLog(url, require="D1") for _ in range(6)]
    await asyncio.gather(*(log.connect() for log in logs))

    assert len({log.generation for log in logs}) == 1
    for log in logs:
        await log.close()


async def test_a_forked_child_is_told_to_open_the_log_itself(url):
    async with PostgresExecutionLog(url, require="D1") as log:
        await log.create(new_flow("f1"))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                log._session._check()
            except BaseException as error:
                code = 0 if type(error).__name__ == "ForkedConnection" else 2
            os._exit(code)

        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert await log.find("f1") is not None


async def _role(url: str) -> None:
    await postgres.execute(
        url, "DO $$ BEGIN CREATE ROLE plain LOGIN; EXCEPTION WHEN duplicate_object THEN END $$"
    )
