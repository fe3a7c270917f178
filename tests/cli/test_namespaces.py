"""`--namespace` beside `--log`: one place, a log for each tenant, whichever store keeps it."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import postgres
from tests.servers.redis import new_prefix, server_url


@pytest.fixture(params=["file", "postgres", "redis"])
def url(request: pytest.FixtureRequest, here: Path) -> Iterator[str]:
    """An empty place."""
    if request.param == "file":
        yield "orders.db"
    elif request.param == "redis":
        yield f"{server_url()}?prefix={new_prefix()}&ephemeral=true"
    else:
        database = asyncio.run(postgres.new_database())
        yield database
        asyncio.run(postgres.drop_database(database))


@pytest.fixture
def agreed(url: str) -> tuple[str, ...]:
    """The server of the tests does not wait for its disk, which has to be said."""
    return ("--require", "D1") if url.startswith("postgres") else ()


def ids(ergon, *where: str) -> list[str]:
    return [flow["id"] for flow in json.loads(ergon("ls", "--json", *where).out)["flows"]]


def test_each_namespace_is_a_log_of_its_own_and_all_are_listed(ergon, url: str, agreed) -> None:
    for name in ("globex", "acme"):
        ran = ergon(
            "run", *agreed, "shop.py:count", "--input", '{"n": 1}', "--id", name, "--log", url, "--namespace", name
        )  # fmt: skip
        assert (ran.code, ran.out) == (0, "4\n"), ran.err
    ergon("run", *agreed, "shop.py:count", "--input", '{"n": 1}', "--id", "plain", "--log", url)

    assert ids(ergon, "--log", url, "--namespace", "acme") == ["acme"]
    assert ids(ergon, "--log", url, "--namespace", "globex") == ["globex"]
    assert ids(ergon, "--log", url) == ["plain"]
    listed = json.loads(ergon("namespaces", "--log", url, "--json").out)
    assert [row["namespace"] for row in listed] == ["acme", "globex"]
    for row in listed:
        assert ids(ergon, "--log", row["log"]) == [row["namespace"]]
    assert ergon("namespaces", "--log", url).out.splitlines()[1].startswith("acme\t")
    gone = ergon("show", "plain", "--log", url, "--namespace", "acme")
    assert gone.code == 1
    assert "no flow has the id 'plain'" in gone.err


def test_a_namespace_that_is_not_there_is_not_made_by_looking(ergon, url: str, agreed) -> None:
    ergon("run", *agreed, "shop.py:count", "--input", '{"n": 1}', "--log", url)

    looked = ergon("ls", "--log", url, "--namespace", "typo")
    listed = ergon("namespaces", "--log", url)

    assert looked.code == 2
    assert "there is no log at" in looked.err
    assert "typo" in looked.err
    assert (listed.code, listed.out) == (0, "")
    assert "no namespaces at" in listed.err


def test_the_option_may_stand_before_the_verb_and_wins_over_url_and_environment(ergon, monkeypatch) -> None:
    monkeypatch.setenv("ERGON_NAMESPACE", "around")
    ergon("run", "shop.py:count", "--input", '{"n": 1}', "--id", "c", "--log", "a.db")
    assert Path("a__around.db").exists()
    ergon(
        "--namespace",
        "before",
        "run",
        "shop.py:count",
        "--input",
        '{"n": 1}',
        "--log",
        "a.db?namespace=in-url",
    )
    assert Path("a__before.db").exists()
    ergon(
        "--namespace",
        "before",
        "run",
        "shop.py:count",
        "--input",
        '{"n": 1}',
        "--log",
        "a.db",
        "--namespace",
        "after",
    )
    assert Path("a__after.db").exists()
    ergon("run", "shop.py:count", "--input", '{"n": 1}', "--log", "a.db", "--namespace", "")
    assert Path("a.db").exists()


def test_a_bad_name_is_refused_in_one_line(ergon) -> None:
    refused = ergon("ls", "--log", "a.db", "--namespace", "Acme Ltd")

    assert refused.code == 2
    assert refused.err.count("\n") == 1
    assert "namespace='Acme Ltd': use 1 to 40 of a-z" in refused.err


def test_the_next_command_that_a_verb_tells_names_the_namespace(ergon) -> None:
    failed = ergon("run", "shop.py:fails", "--id", "f", "--log", "a.db", "--namespace", "acme")

    assert failed.code == 1
    assert "`ergon show f --log a.db --namespace acme`" in failed.err


def test_the_worker_processes_of_one_command_work_for_its_namespace(ergon, command) -> None:
    for name in ("acme", "globex"):
        ergon("run", "shop.py:fails", "--id", "f", "--log", "a.db", "--namespace", name)
        ergon("retry", "f", "--log", "a.db", "--namespace", name)
    workers = command(
        "worker", "shop.py", "--processes", "2", "--log", "a.db?namespace=globex", "--namespace", "acme"
    )

    import time

    until = time.monotonic() + 30
    while not ergon("ls", "--status", "failed", "--log", "a.db", "--namespace", "acme").out.count("fails"):
        assert time.monotonic() < until
    workers.send_signal(signal.SIGTERM)
    _, err = workers.communicate(timeout=30)

    assert workers.returncode == 0, err
    assert "pending" in ergon("ls", "--log", "a.db", "--namespace", "globex").out


def test_what_only_looks_like_a_namespace_of_a_file_is_not_listed(ergon) -> None:
    ergon("run", "shop.py:count", "--input", '{"n": 1}', "--log", "a.db", "--namespace", "acme")
    Path("a__notes.db").write_text("not a database at all")
    Path("a__folder.db").mkdir()
    Path("a__empty.db").touch()
    Path("a__acme.txt").touch()
    Path("aa__other.db").write_bytes(Path("a__acme.db").read_bytes())

    listed = json.loads(ergon("namespaces", "--log", "a.db", "--json").out)

    assert [row["namespace"] for row in listed] == ["acme"]
