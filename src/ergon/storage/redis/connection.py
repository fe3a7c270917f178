"""The way to one server: commands in, answers out, in one round trip for as many as there are.

Commands go out once. Whether to send again what got no answer is decided by who knows what it means (`group.py`,
`session.py`), so redis-py's own repeating is switched off. Which server to ask is decided in `server.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ResponseError

from ergon.storage.outage import Outage
from ergon.storage.redis.errors import AtReplica, CutOff, is_cut, is_replica, translate
from ergon.storage.redis.scripts import scripts
from ergon.storage.redis.settings import Settings

Command = tuple[Any, ...]
Address = tuple[str, int]
ANSWER_SECONDS: Final = 10.0
"""How long a server may be silent, or take nothing, before the connection is given up. It answers a script in
milliseconds; many large values together may take longer than this to travel, one after the other."""
TRUST_SECONDS: Final = 1.0
"""How long a connection is taken to lead to a master: a server that has become a replica goes on answering reads."""
_HELLO: Final = ("HELLO", "3")
"""Asks for nothing that is not so already, and is answered with the server's role among others."""
_CHUNK_BYTES: Final = 1024 * 1024
CONNECT_SECONDS: Final = 5.0
CONNECTIONS_MAX: Final = 64


class Link:
    """Connections to one server."""

    def __init__(
        self, settings: Settings, address: Address | None = None, *, outage: Outage | None = None
    ) -> None:
        """`address`: of another node of the cluster; None: what the settings name. `outage`: told when it is away."""
        self.client = _client(settings, address)
        self.asks_role = False
        """Ask each connection now and then whether it leads to a master. A cluster's node tells by itself: MOVED."""
        self._where = settings.where if address is None else "{} ({}:{})".format(settings.where, *address)
        self._outage = outage or Outage(says=False)
        self._trusted_until: WeakKeyDictionary[object, float] = WeakKeyDictionary()
        """By connection."""
        self.left_at = -math.inf
        """When all connections were closed last because they led to a replica."""

    async def run(self, commands: Sequence[Command], *, strict: bool = False) -> list[Any]:
        """Send commands at once; return an answer or an error for each. `strict` raises the first error.

        Raises when the connection breaks: then nobody knows which of them were done.
        """
        cancels = _cancels()
        began = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_SECONDS) as silence:
                answers = await self._exchange(commands, silence)
        except Exception as error:
            leave_if_cancelled(cancels)
            if is_cut(error) and began < self.left_at:
                raise CutOff("its connections are closed, as the server is a replica") from error
            if is_cut(error):
                self._outage.met(translate(error, self._where), since=began)
                await self._cut()
            raise
        if (demoted := next(filter(is_replica, answers), None)) is not None:
            self._outage.met(translate(demoted, self._where), since=began)
            if began > self.left_at:
                await self._leave()
        elif self._outage.is_on and began > self.left_at:
            self._outage.over(self._where)
        leave_if_cancelled(cancels)
        if strict:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers

    async def info(self) -> dict[str, Any]:
        """All that the server tells of itself."""
        async with asyncio.timeout(ANSWER_SECONDS):
            told: dict[str, Any] = await self.client.info("all")
        return told

    async def _exchange(self, commands: Sequence[Command], silence: asyncio.Timeout) -> list[Any]:
        """One round trip on one connection, in half the time that redis-py's pipelines take for many commands.

        A connection on which anything goes wrong, a cancel included, is closed before it is given back.
        """
        now = asyncio.get_running_loop().time
        pool = self.client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        asks = self.asks_role and now() > self._trusted_until.get(connection, -math.inf)
        is_whole = False
        try:
            await _send(connection, [_HELLO, *commands] if asks else commands, silence)
            heard_at = now()
            answers: list[Any] = []
            for _ in range(len(commands) + asks):
                try:
                    answers.append(await connection.read_response())
                except ResponseError as error:
                    answers.append(error)
                if now() > heard_at + 1.0:
                    heard_at = now()
                    silence.reschedule(heard_at + ANSWER_SECONDS)
            is_whole = True
        finally:
            if not is_whole:
                await connection.disconnect(nowait=True)
            await pool.release(connection)
        if not asks:
            return answers
        hello, *answers = answers
        if isinstance(hello, dict) and hello.get(b"role") in {b"replica", b"slave"}:
            lost = AtReplica("it says that it is a replica")
            return [answer if isinstance(answer, Exception) else lost for answer in answers]
        self._trusted_until[connection] = now() + TRUST_SECONDS
        return answers

    async def load_scripts(self) -> None:
        """Make every script known to the server."""
        wanted = scripts().values()
        known = (await self.run([("SCRIPT", "EXISTS", *(script.sha for script in wanted))], strict=True))[0]
        missing = [script for script, is_known in zip(wanted, known, strict=True) if not is_known]
        if missing:
            await self.run([("SCRIPT", "LOAD", script.text) for script in missing], strict=True)

    async def close(self) -> None:
        """Close every connection. They are gone anyway when that fails."""
        with contextlib.suppress(Exception):
            await self.client.aclose()

    async def _cut(self) -> None:
        """Drop the idle connections after one broke: they are most likely dead too."""
        with contextlib.suppress(Exception):
            await self.client.connection_pool.disconnect(inuse_connections=False)

    async def _leave(self) -> None:
        """Drop all connections, busy ones too: they work, but what they lead to is not the master any more.

        Its name may stand for another server by now.
        """
        self.left_at = time.monotonic()
        self._trusted_until.clear()
        with contextlib.suppress(Exception):
            await self.client.connection_pool.disconnect(inuse_connections=True)


async def _send(connection: Any, commands: Sequence[Command], silence: asyncio.Timeout) -> None:
    """Send commands, perhaps in several pieces."""
    now = asyncio.get_running_loop().time
    is_begun = False
    for chunk in _chunks(commands):
        if is_begun and not connection.is_connected:  # redis-py would connect anew, in the middle of them
            raise ConnectionLost("it was closed while commands were sent")
        is_begun = True
        try:
            await connection.send_packed_command(chunk)
        except (
            AttributeError
        ) as error:  # asyncio's own, of a transport that is closed while its buffer is full
            raise ConnectionLost("it was closed while commands were sent") from error
        silence.reschedule(now() + ANSWER_SECONDS)


def _chunks(commands: Sequence[Command]) -> Iterator[bytes]:
    """What to send, packed only when its turn comes: usually one piece."""
    packed: list[bytes] = []
    size = 0
    for command in commands:
        packed.append(pack_command(command))
        size += len(packed[-1])
        if size >= _CHUNK_BYTES:
            yield b"".join(packed)
            packed, size = [], 0
    if packed:
        yield b"".join(packed)


def _client(settings: Settings, address: Address | None) -> Redis:
    options: dict[str, Any] = {
        **settings.client_options(),
        "db": settings.db,
        "socket_timeout": None,  # one for each round trip is set here, not one for each answer
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 3,
        "client_name": "ergon",
        "max_connections": CONNECTIONS_MAX,
    }
    if address is not None:
        return Redis(host=address[0], port=address[1], **options)
    if settings.path is not None:
        return Redis(unix_socket_path=settings.path, **options)
    return Redis(host=settings.host, port=settings.port, **options)


async def pause(attempt: int) -> None:
    """Wait before the next attempt: longer each time, up to a second."""
    await asyncio.sleep(min(1.0, 0.01 * 2 ** min(attempt, 10)))


def leave_if_cancelled(before: int = 0) -> None:
    """End a task that was told to end while redis-py was connecting, which may swallow the word.

    `before`: how often the task had been told before. One that cleans up may go on.
    """
    if _cancels() > before:
        raise asyncio.CancelledError


def _cancels() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
