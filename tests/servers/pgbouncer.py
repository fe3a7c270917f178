"""The real pgbouncer in transaction mode, where `ERGON_TEST_PGBOUNCER` says which program it is."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from tests.servers.binaries import Guarded, NoServer, free_port, short_folder

VARIABLE: Final = "ERGON_TEST_PGBOUNCER"
_START_SECONDS: Final = 20.0
_CONFIGURATION: Final = """\
[databases]
* = host={server.parent} port={port} user=postgres
[pgbouncer]
listen_addr =
listen_port = {own}
unix_socket_dir = {folder}
auth_type = any
pool_mode = transaction
default_pool_size = 4
min_pool_size = 4
max_client_conn = 200
server_round_robin = 1
"""


class PgBouncer:
    """What `Pooler` is a stand-in for, and used like it; one server, any number of clients."""

    def __init__(self, server_socket: Path, database: str) -> None:
        self.database = database
        self._folder, self._port = short_folder("ergon-bouncer-"), free_port()
        port = server_socket.suffix.removeprefix(".")
        (self._folder / "configuration").write_text(
            _CONFIGURATION.format(server=server_socket, port=port, own=self._port, folder=self._folder)
        )
        self._server: Guarded | None = None

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.stop()

    @property
    def url(self) -> str:
        """How to reach the database through it."""
        host = quote(str(self._folder), safe="")
        return f"postgresql://postgres@/{self.database}?host={host}&port={self._port}&pgbouncer=1"

    def cut(self) -> None:
        """Cut every client."""
        assert self._server is not None, "it was started"
        self._server.process.kill()
        self._server.process.wait()
        self._server.leave()
        self._start()

    def _start(self) -> None:
        self._server = Guarded([os.environ[VARIABLE], "-q", "configuration"], self._folder, cwd=self._folder)
        give_up_at = time.monotonic() + _START_SECONDS
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                try:
                    probe.connect(str(self._folder / f".s.PGSQL.{self._port}"))
                    return
                except OSError as error:
                    if self._server.process.poll() is not None or time.monotonic() > give_up_at:
                        said = self._server.output.read_text()[-2000:]
                        self._server.stop()
                        raise NoServer(f"pgbouncer did not start: {said}") from error
            time.sleep(0.005)
