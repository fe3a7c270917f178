"""PostgreSQL for tests: `ERGON_TEST_POSTGRES_URL`, else the binaries of a package, else those of this system.

`ERGON_TEST_POSTGRES_VERSION=13` asks for a version, and for none but that. One server for each process, started by the
first test that asks. Tests keep apart by databases of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from tests.servers.binaries import (
    Guarded,
    NoServer,
    free_port,
    reachable,
    short_folder,
    without_root,
)
from tests.servers.versions import NEWEST, find
from tests.servers.versions import VARIABLE as VERSION

VARIABLE: Final = "ERGON_TEST_POSTGRES_URL"
_STARTS_MAX: Final = 5
_HBA: Final = """\
local all all trust
host all locked 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
local replication all trust
host replication all 127.0.0.1/32 trust
"""
_CLEAR: Final = """
DO $$ DECLARE name text; BEGIN
  FOR name IN SELECT nspname FROM pg_namespace WHERE starts_with(nspname, '{0}__') LOOP
    EXECUTE format('DROP SCHEMA %I CASCADE', name);
  END LOOP;
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = '{0}' AND tablename <> 'meta' LOOP
    EXECUTE format('DELETE FROM %I.%I', '{0}', name);
  END LOOP;
END $$"""
_numbers = count(1)


class Postgres:
    """One server of our own: started here, and restarted, crashed and frozen as a test pleases."""

    def __init__(
        self,
        version: str | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        copy_of: Postgres | None = None,
        on_disk: bool = False,
    ) -> None:
        """`version`: the major one; by default that of the variable, else the newest there is.

        `copy_of`: a server that was shut down, of whose data a copy is taken instead of making new ones. `on_disk`: for
        whoever measures; its data are not to be in memory.
        """
        self._bin = _binaries(version or os.environ.get(VERSION))
        self.folder = short_folder("ergon-pg-", on_disk=on_disk)
        self._settings: dict[str, str] = {
            "fsync": "off", "autovacuum": "off", "max_connections": "100", "shared_buffers": "64MB", **(settings or {}),
        }  # fmt: skip
        self._environment = {"LC_ALL": "C", "TZ": "UTC", "PATH": os.environ.get("PATH", "")}
        (self.folder / "output").touch()
        if copy_of is None:
            self._run(
                *("initdb", "-D", "data", "-U", "postgres", "-A", "trust"),
                *("-E", "UTF8", "--locale=C", "--no-sync"),
            )
            (self.folder / "data/pg_hba.conf").write_text(_HBA)
        else:
            subprocess.run(["cp", "-a", copy_of.folder / "data", self.folder / "data"], check=True)
            (self.folder / "data/standby.signal").touch()
        self.port = free_port()
        self._server = self._start()

    def url(self, database: str = "postgres", *, user: str = "postgres", tcp: bool = False) -> str:
        """How to reach a database."""
        if tcp:
            return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{user}@/{database}?host={quote(str(self.folder), safe='')}&port={self.port}"

    @property
    def socket(self) -> Path:
        """Where it listens, for whoever stands between."""
        return self.folder / f".s.PGSQL.{self.port}"

    def crash(self) -> None:
        """End it as a kill -9 of all its processes would."""
        self._end(signal.SIGQUIT)

    def kill(self) -> None:
        """End all its processes by SIGKILL."""
        self._signal_all(signal.SIGKILL)
        self._server.process.wait(30)
        self._server.leave()

    def freeze(self) -> None:
        """Stop all its processes, as if its machine were lost: it answers nobody, and nothing is cut."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal_all(signal.SIGCONT)

    def shut_down(self) -> None:
        """End it as an operator does: connections are cut, nothing is lost."""
        self._end(signal.SIGINT)

    def start(self, **settings: str) -> None:
        """Start it again, on the same port, with other settings if given."""
        self._settings.update(settings)
        self._server = self._start()

    def stop(self) -> None:
        """End it for good."""
        if self._server.process.poll() is None:
            self.thaw()
        self._server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)  # the guard of one that had ended is gone

    def _signal_all(self, how: signal.Signals) -> None:
        """To the first process, and then to its children, each of which has a session of its own."""
        first = self._server.process.pid
        os.kill(first, how)
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
        for pid, parent in (map(int, line.split()) for line in listed.stdout.splitlines()):
            if parent == first:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, how)

    def _end(self, how: signal.Signals) -> None:
        self._server.process.send_signal(how)
        self._server.process.wait(30)
        self._server.leave()

    def _start(self) -> Guarded:
        for _ in range(_STARTS_MAX):
            options = [f"--{key}={value}" for key, value in self._settings.items()]
            places: list[str | Path] = [
                "-D",
                "data",
                "-k",
                self.folder,
                "-h",
                "127.0.0.1",
                "-p",
                str(self.port),
            ]
            server = Guarded(
                [self._bin / "postgres", *places, *options],
                self.folder, stop_signal="INT", env=self._environment, cwd=self.folder,
            )  # fmt: skip
            if self._is_ready(server):
                return server
            server.leave()
            if "Address already in use" not in server.output.read_text():
                break
            self.port = free_port()
        raise NoServer(f"PostgreSQL did not start: {server.output.read_text()[-2000:]}")

    def _is_ready(self, server: Guarded) -> bool:
        state, give_up_at = self.folder / "data/postmaster.pid", time.monotonic() + 30
        while server.process.poll() is None:
            try:
                lines = state.read_text().split("\n")
            except OSError:
                lines = []
            if len(lines) > 7 and lines[7].strip() == "ready" and int(lines[0]) == server.process.pid:
                return True
            if time.monotonic() > give_up_at:
                server.process.kill()
            time.sleep(0.005)
        return False

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            **without_root(),
        )
        if done.returncode:
            raise NoServer(f"{program} failed: {done.stderr[-2000:]}")


class Pair:
    """A primary whose commits wait for its standby, and that standby."""

    def __init__(self) -> None:
        self.primary = Postgres(settings={"fsync": "on"})
        self.primary.shut_down()
        try:
            follows = {"primary_conninfo": self._conninfo(), "wal_retrieve_retry_interval": "50ms"}
            self.standby = Postgres(copy_of=self.primary, settings={"fsync": "on", **follows})
        except BaseException:
            self.primary.stop()
            raise
        self.primary.start(synchronous_standby_names="standby")

    def _conninfo(self) -> str:
        return f"host={self.primary.folder} port={self.primary.port} user=postgres application_name=standby"

    def url(self, *, password: str = "", options: str = "") -> str:
        """Both, the primary first."""
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        return f"postgresql://postgres{password and ':'}{password}@{hosts}/postgres{options}"

    async def promote(self) -> None:
        """Make the standby a primary."""
        await execute(self.standby.url(), "SELECT pg_promote()")

    def stop(self) -> None:
        """End both for good."""
        self.primary.stop()
        self.standby.stop()


@cache
def server() -> Postgres:
    """This process's server, started by whoever asks first."""
    return Postgres()


def server_url() -> str:
    """A database to start from: the one that was given, else of our own server."""
    return os.environ.get(VARIABLE) or server().url()


async def execute(url: str, *statements: str) -> None:
    """Run statements on a connection of their own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def new_database(url: str | None = None) -> str:
    """Create an empty database on a server, the session's by default, and return its URL."""
    base = url or server_url()
    name = f"ergon_{os.getpid()}_{next(_numbers)}"
    await execute(base, f"CREATE DATABASE {name}")
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=f"/{name}"))


async def drop_database(url: str) -> None:
    """Remove a database made by `new_database`, whoever is still connected to it."""
    parts = urlsplit(url)
    name = parts.path.removeprefix("/")
    assert name.startswith("ergon_"), "only what the tests made"
    base = (
        urlunsplit(parts._replace(path="/postgres")) if VARIABLE not in os.environ else os.environ[VARIABLE]
    )
    await execute(base, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


async def clear_schema(url: str, schema: str) -> None:
    """Empty the log in a schema, and remove those of its namespaces: quicker than making it anew for each test."""
    await execute(url, _CLEAR.format(schema))


@cache
def _binaries(version: str | None) -> Path:
    if version is not None:
        if (exact := find(version)) is None:
            raise NoServer(
                f"no PostgreSQL {version} to test with: `python3 dev.py postgres {version}` fetches one where it can"
            )
        return reachable(exact, "postgres")
    if (newest := find(NEWEST)) is not None:
        return reachable(newest, "postgres")
    here = shutil.which("postgres")
    found = [Path(here).resolve().parent] if here else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in found:
        if (folder / "initdb").exists():
            return folder
    raise NoServer(
        "no PostgreSQL to test with: run `python3 dev.py setup`, which installs one, install PostgreSQL, or set "
        f"{VARIABLE} to the URL of a database in which tests may create others"
    )


if __name__ == "__main__":  # try it: python -m tests.servers.postgres
    print(asyncio.run(new_database()))
