"""The server that the tests of the PostgreSQL log run on is itself as good as it claims."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from tests.servers import binaries, postgres

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


def test_without_any_server_the_line_says_what_to_do(monkeypatch):
    monkeypatch.setattr(postgres, "package_folder", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(Path, "glob", lambda *_: [])

    with pytest.raises(binaries.NoServer, match=f"dev.py setup.*{postgres.VARIABLE}"):
        postgres._binaries.__wrapped__("18")
