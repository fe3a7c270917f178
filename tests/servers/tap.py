"""A bad line between a worker and any server, by bytes: it drops, delays, resets, and loses answers.

async with Tap(port) as tap:
    tap.drop()                        # nothing comes through any more, and nobody is told
    url = f"redis://127.0.0.1:{tap.port}/0"

What reads the protocol, to lose one statement of many, is `tests/servers/proxy.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self


class Tap:
    """Stands between any number of connections and one server, on a port of its own."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._accepting: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_reset = False
        self._loses_answers = False
        self._delay_seconds = 0.0
        self.lost_answers = 0
        """How many answers were lost: the server had done what it was asked."""

    async def __aenter__(self) -> Self:
        self._accepting = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._accepting is not None
        self._accepting.close()
        self._cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        assert self._accepting is not None
        return int(self._accepting.sockets[0].getsockname()[1])

    def lead_to(self, server_port: int) -> None:
        """Bring new connections to another server, as a name does that stands for another one now."""
        self._server_port = server_port

    def drop(self) -> None:
        """Let nothing through, in either direction, and tell nobody: a network that drops packets."""
        self._flowing.clear()

    def delay(self, seconds: float) -> None:
        """Let everything through so much later, on each way."""
        self._delay_seconds = seconds

    def reset(self) -> None:
        """Cut every connection, and each new one as soon as it is made."""
        self._is_reset = True
        self._cut()

    def lose_answers(self) -> None:
        """Bring the server what it is asked, and cut the line when it answers: as after each COMMIT."""
        self._loses_answers = True

    def heal(self) -> None:
        """Be a good line again."""
        self._is_reset = self._loses_answers = False
        self._delay_seconds = 0.0
        self._flowing.set()

    def _cut(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._is_reset:
            client.transport.abort()
            return
        try:
            there, server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            client.transport.abort()
            return
        self._writers |= {client, server}
        try:
            ways = [
                asyncio.create_task(self._carry(reader, server, answers=False)),
                asyncio.create_task(self._carry(there, client, answers=True)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            self._writers -= {client, server}
            client.transport.abort()
            server.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if answers and self._loses_answers:
                    self.lost_answers += 1
                    return
                if self._delay_seconds:
                    await asyncio.sleep(self._delay_seconds)
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
