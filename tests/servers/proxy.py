"""A bad line between a log and its server: it cuts, delays and loses on demand.

async with Line(server) as line:
    line.lose(ANSWER, "COMMIT")       # the next one: the server does it, and nobody hears
    log = PostgresExecutionLog(line.url(database))
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from tests.servers import wire
from tests.servers.binaries import short_folder

REQUEST: Final = "request"
"""The line is cut before the server hears of it."""
ANSWER: Final = "answer"
"""The line is cut after the server has done it."""
LATE: Final = "late"
"""The line is cut for the client at once; the server hears of it when `Line.deliver_late` says so."""


class Line:
    """Stands between any number of connections and one server, on a unix socket of its own."""

    def __init__(self, server_socket: Path) -> None:
        self._server_socket = server_socket
        self._folder = short_folder("ergon-line-")
        self._accepting: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._to_lose: list[tuple[str, str]] = []
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._late = asyncio.Event()
        self.is_down = False
        """While True every connection is cut as soon as it is made."""
        self.lost: list[str] = []
        """The statements that were lost, with what became of each."""
        self.saw: list[str] = []
        """Every statement that passed."""
        self.on_statement: Callable[[str], None] = self.saw.append
        self.before_statement: Callable[[str], Awaitable[None]] | None = None
        """What is waited for before a statement goes to the server."""

    async def __aenter__(self) -> Self:
        path = str(self._folder / ".s.PGSQL.5432")
        self._accepting = await asyncio.start_unix_server(self._serve, path, limit=1 << 24)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._accepting is not None
        self._accepting.close()
        self._flowing.set()
        self._late.set()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)
        shutil.rmtree(self._folder)

    def url(self, database: str, user: str = "postgres") -> str:
        """How to reach a database through this line."""
        return f"postgresql://{user}@/{database}?host={quote(str(self._folder), safe='')}&port=5432"

    def lose(self, what: str, *statements: str) -> None:
        """Lose the next statements that have these words, one after the other: their request or their answer."""
        self._to_lose += [(what, statement) for statement in statements]

    def cut(self) -> None:
        """Cut every connection there is."""
        for writer in tuple(self._open):
            writer.transport.abort()

    def freeze(self) -> None:
        """Let nothing through any more, as a network does that drops packets."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let everything through again."""
        self._flowing.set()

    def deliver_late(self) -> None:
        """Bring the server what was to come late."""
        self._late.set()

    async def _serve(self, client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.is_down:
            client.transport.abort()
            return
        try:
            reader, server = await wire.connect(self._server_socket)
        except OSError:
            client.transport.abort()
            return
        self._open |= {client, server}
        answers = asyncio.create_task(self._answers(reader, client))
        try:
            await self._requests(client_reader, (reader, server), client, answers)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open -= {client, server}
            client.transport.abort()
            server.transport.abort()
            answers.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answers

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        server_side: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        client: asyncio.StreamWriter,
        answers: asyncio.Task[None],
    ) -> None:
        server = server_side[1]
        first = await wire.startup(reader)
        server.write(wire.packed(b"", first))
        statements = wire.Statements()
        async for kind, body in wire.messages(reader):
            await self._flowing.wait()
            sql = statements.run_by(kind, body)
            if sql is not None:
                self.on_statement(sql)
                if self.before_statement is not None:
                    await self.before_statement(sql)
            if sql is not None and self._to_lose and self._to_lose[0][1] in sql:
                what, _ = self._to_lose.pop(0)
                self.lost.append(f"{what} of {sql.splitlines()[0]}")
                await self._lose(what, (kind, body), server_side, client, answers)
                return
            server.write(wire.packed(kind, body))
            await server.drain()

    async def _lose(
        self,
        what: str,
        message: wire.Message,
        server_side: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        client: asyncio.StreamWriter,
        answers: asyncio.Task[None],
    ) -> None:
        if what == REQUEST:
            return
        answers.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answers
        if what == LATE:
            client.transport.abort()
            await self._late.wait()
        kind, body = message
        reader, server = server_side
        server.write(wire.packed(kind, body))
        if kind == b"B":
            server.write(wire.packed(b"E", b"\0" + bytes(4)) + wire.packed(b"S", b""))
        server.write(wire.packed(b"X", b""))  # the server does what came before, says so, and hangs up
        with contextlib.suppress(ConnectionError):
            await server.drain()
            while await reader.read(1 << 16):
                pass

    async def _answers(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await self._flowing.wait()
                client.write(data)
                await client.drain()
        client.transport.abort()
