"""The way to the server: commands in, answers out, in one round trip for as many as there are.

Commands go out once. Whether to send again what got no answer is decided by who knows what it means (`group.py`,
`session.py`), so redis-py's own repeating is switched off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ergon.storage.redis.errors import is_lost
from ergon.storage.redis.scripts import scripts
from ergon.storage.redis.settings import Settings

Command = tuple[Any, ...]
ANSWER_SECONDS: Final = 10.0
"""How long an answer may take before the connection is given up. The server answers a script in milliseconds."""
CONNECT_SECONDS: Final = 5.0
CONNECTIONS_MAX: Final = 64


class Server:
    """One server, or a cluster of them: found out by asking it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Redis | RedisCluster | None = None
        self._info: dict[str, Any] = {}
        self.is_cluster = False

    @property
    def info(self) -> dict[str, Any]:
        """What `INFO` said when the log was opened."""
        return self._info

    async def open(self) -> None:
        """Connect, and find out what is there. Raises redis-py's errors."""
        client = self._single()
        try:
            self._info = await client.info("all")
        except BaseException:
            await client.aclose()
            raise
        self.is_cluster = bool(self._info.get("cluster_enabled"))
        if self.is_cluster:
            await client.aclose()
            self._client = self._cluster()
        else:
            self._client = client
        try:
            await self.load_scripts()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close every connection. They are gone anyway when that fails."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                await client.aclose()

    def abandon(self) -> None:
        """Forget the connections without closing them: their event loop or their process is not this one."""
        self._client = None

    @property
    def client(self) -> Redis | RedisCluster:
        """redis-py's own client."""
        assert self._client is not None, "not open"
        return self._client

    async def load_scripts(self) -> None:
        """Make every script known to every server."""
        wanted = [("SCRIPT LOAD", script.text) for script in scripts().values()]
        if isinstance(self.client, RedisCluster):
            await self.client.initialize()
            for node in self.client.get_primaries():
                for command, text in wanted:
                    await node.execute_command(*command.split(), text)
        else:
            await self.run([("SCRIPT", "LOAD", text) for _, text in wanted], strict=True)

    async def run(self, commands: Sequence[Command], *, strict: bool = False) -> list[Any]:
        """Send commands at once; return an answer or an error for each. `strict` raises the first error.

        Raises when the connection breaks: then nobody knows which of them were done.
        """
        client = self.client
        if isinstance(client, RedisCluster):
            pipeline: Any = client.pipeline()
        else:
            pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        cancels = _cancels()
        try:
            answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as error:
            leave_if_cancelled(cancels)
            if is_lost(error):
                await self.cut()
            raise
        leave_if_cancelled(cancels)
        if strict:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers

    async def cut(self) -> None:
        """Drop connections after one broke: the others to that server are most likely dead too."""
        client = self._client
        with contextlib.suppress(Exception):
            if isinstance(client, RedisCluster):
                await client.aclose()  # it finds its nodes again when it is used next
            elif client is not None:
                await client.connection_pool.disconnect(inuse_connections=False)

    async def publish(self, channel: str, message: bytes) -> None:
        """Tell whoever listens, if there is a connection."""
        await self.client.execute_command("PUBLISH", channel, message)

    def _options(self) -> dict[str, Any]:
        return {
            **self._settings.client_options(),
            "socket_timeout": ANSWER_SECONDS,
            "socket_connect_timeout": CONNECT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 3,
            "client_name": "ergon",
            "max_connections": CONNECTIONS_MAX,
        }

    def _single(self) -> Redis:
        settings = self._settings
        if settings.path is not None:
            return Redis(unix_socket_path=settings.path, db=settings.db, **self._options())
        return Redis(host=settings.host, port=settings.port, db=settings.db, **self._options())

    def _cluster(self) -> RedisCluster:
        return RedisCluster(host=self._settings.host, port=self._settings.port, **self._options())

    def subscriber(self) -> Redis:
        """A client for a connection of its own that listens: any node of a cluster hears what is published."""
        return self._single()


async def pause(attempt: int) -> None:
    """Wait before the next attempt: longer each time, up to a second."""
    await asyncio.sleep(min(1.0, 0.01 * 2**attempt))


def leave_if_cancelled(before: int = 0) -> None:
    """End a task that was told to end while redis-py was connecting, which may swallow the word.

    `before`: how often the task had been told before. One that cleans up may go on.
    """
    if _cancels() > before:
        raise asyncio.CancelledError


def _cancels() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
