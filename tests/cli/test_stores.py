"""The verbs on a log that a server keeps: the same words, the same answers, and no password in any of them."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.servers import postgres
from tests.servers.binaries import free_port
from tests.servers.redis import new_prefix, server_url

SECRET = "s3cret-word"


@pytest.fixture(params=["postgres", "redis"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty store, and a password in its URL that the server does not ask for."""
    if request.param == "redis":
        yield f"{server_url()}?prefix={new_prefix()}&ephemeral=true"
        return
    database = asyncio.run(postgres.new_database())
    parts = urlsplit(database)
    yield urlunsplit(parts._replace(netloc=f"postgres:{SECRET}@{parts.netloc.rpartition('@')[2]}"))
    asyncio.run(postgres.drop_database(database))


@pytest.fixture
def agreed(url: str) -> tuple[str, ...]:
    """The servers of the tests do not wait for their disk, which has to be said."""
    return ("--require", "D1") if url.startswith("postgres") else ()


def test_a_flow_is_run_listed_shown_and_explained(ergon, url: str, agreed) -> None:
    ran = ergon("run", *agreed, "shop.py:count", "--input", '{"n": 4}', "--id", "c", "--log", url)
    listed = ergon("ls", "--log", url)
    shown = ergon("show", "c", "--log", url)
    why = ergon("why", "c", "--log", url)
    doctor = ergon("doctor", "--log", url)

    assert (ran.code, ran.out) == (0, "7\n")
    assert "count" in listed.out
    assert "increase" in shown.out
    assert "completed" in why.out
    assert doctor.code == 0, doctor.out
    assert "SQLite" not in doctor.out
    assert not any(
        SECRET in text for each in (ran, listed, shown, why, doctor) for text in (each.out, each.err)
    )


def test_looking_at_a_store_makes_no_log_in_it(ergon, url: str) -> None:
    first = ergon("ls", "--log", url)
    second = ergon("doctor", "--log", url)

    assert (first.code, second.code) == (2, 1)
    assert "there is no log at" in first.err
    assert "there is no log at" in second.out
    assert SECRET not in first.err + second.out


def test_a_failed_flow_is_retried_and_its_advice_hides_the_password(
    ergon, here: Path, url: str, agreed
) -> None:
    failed = ergon("run", *agreed, "shop.py:fails_once", "--id", "f", "--log", url)
    (here / "mended").write_text("")
    retried = ergon("retry", "f", "--log", url)
    again = ergon("run", *agreed, "shop.py:fails_once", "--id", "f", "--log", url)

    assert (failed.code, retried.code, again.out) == (1, 0, '"fine"\n')
    assert "`ergon show f" in failed.err
    assert SECRET not in failed.err


def test_worker_processes_share_a_server_and_no_command_line_tells_its_password(
    command, ergon, url: str, agreed
) -> None:
    ids = [f"c-{n}" for n in range(6)]
    ergon("run", *agreed, "shop.py:count", "--input", '{"n": 1}', "--id", "made", "--log", url)
    asyncio.run(schedule(url, ids))
    workers = command(
        "worker", "shop.py", *agreed, "--processes", "2", "--name", "shop", env={"ERGON_LOG": url}
    )

    done = _wait_for_completed(ergon, url, 7)
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    workers.send_signal(signal.SIGTERM)
    _, err = workers.communicate(timeout=30)

    assert done == 7
    assert workers.returncode == 0, err
    assert not any(SECRET.encode() in line for line in lines)
    assert SECRET not in err


def test_a_url_of_several_servers_leads_to_the_one_that_is_there(ergon) -> None:
    gone, port = free_port(), postgres.server().port
    database = urlsplit(asyncio.run(postgres.new_database(postgres.server().url()))).path
    url = f"postgresql://postgres:{SECRET}@127.0.0.1:{gone},127.0.0.1:{port}{database}?target_session_attrs=read-write"
    nowhere = f"postgresql://postgres:{SECRET}@127.0.0.1:{gone},localhost:{gone}{database}"

    ran = ergon("run", "--require", "D1", "shop.py:count", "--input", '{"n": 4}', "--id", "c", "--log", url)
    doctor, lost = ergon("doctor", "--log", url), ergon("doctor", "--log", nowhere)

    assert (ran.out, doctor.code, lost.code) == ("7\n", 0, 1)
    assert f"127.0.0.1:{gone} cannot be reached" in lost.out
    assert SECRET not in ran.err + doctor.out + lost.out + lost.err


async def schedule(url: str, ids: list[str]) -> None:
    from ergon import Scheduler, open_log

    async with open_log(url, create=False) as log:
        for flow_id in ids:
            await Scheduler(log).schedule_named("count", {"n": 1}, id=flow_id)


def _wait_for_completed(ergon, url: str, count: int) -> int:
    import time

    until = time.monotonic() + 30
    while True:
        found = len(json.loads(ergon("ls", "--json", "--status", "completed", "--log", url).out)["flows"])
        if found >= count or time.monotonic() > until:
            return found
