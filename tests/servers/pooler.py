"""A stand-in for pgbouncer in transaction mode: each transaction of a client runs on another session of the server.

Like pgbouncer it refuses parameters of a session that it cannot keep, and does not know prepared statements: one that
was prepared on one session does not exist on the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import struct
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from tests.servers import wire
from tests.servers.binaries import short_folder

_KEEPS: Final = {"user", "database", "client_encoding", "application_name", "DateStyle", "TimeZone"}
_SESSIONS: Final = 4
Session = tuple[asyncio.StreamReader, asyncio.StreamWriter]  # of the server


@dataclass(eq=False)
class _Client:
    writer: asyncio.StreamWriter
    session: Session | None = None
    """While a transaction is under way."""
    answers: asyncio.Task[None] | None = None


class Pooler:
    """Listens on a unix socket of its own; one database, any number of clients."""

    def __init__(self, server_socket: Path, database: str) -> None:
        self._server_socket, self.database = server_socket, database
        self._folder = short_folder("ergon-pool-")
        self._free: deque[Session] = deque()
        self._returned = asyncio.Condition()
        self._greeting = b""
        self._accepting: asyncio.Server | None = None
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.transactions = 0
        self.used: set[Session] = set()

    async def __aenter__(self) -> Self:
        while len(self._free) < _SESSIONS:
            await self._give_back(await self._new_session())
        path = str(self._folder / ".s.PGSQL.6432")
        self._accepting = await asyncio.start_unix_server(self._serve, path, limit=1 << 24)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._accepting is not None
        self._accepting.close()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for session in self._free:
            session[1].transport.abort()
        shutil.rmtree(self._folder)

    @property
    def url(self) -> str:
        """How to reach the database through it."""
        host = quote(str(self._folder), safe="")
        return f"postgresql://postgres@/{self.database}?host={host}&port=6432&pgbouncer=1"

    def cut(self) -> None:
        """Cut every client."""
        for client in tuple(self._clients):
            client.transport.abort()

    async def _new_session(self) -> Session:
        session = await wire.connect(self._server_socket)
        writer = session[1]
        first = struct.pack("!I", 196608) + f"user\0postgres\0database\0{self.database}\0\0".encode()
        writer.write(wire.packed(b"", first))
        greeting = b""
        async for kind, body in wire.messages(session[0]):
            greeting += wire.packed(kind, body)
            if kind == b"Z":
                break
        self._greeting = greeting
        return session

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._clients.add(client)
        client_side = _Client(client)
        try:
            parts = (await wire.startup(reader))[4:].decode().split("\0")
            unknown = sorted(set(parts[0:-2:2]) - _KEEPS)
            if unknown:
                client.write(_refusal(f"unsupported startup parameter: {unknown[0]}"))
                return
            client.write(self._greeting)
            async for kind, body in wire.messages(reader):
                if kind == b"X":
                    return
                if client_side.session is None:
                    client_side.session = await self._take()
                    client_side.answers = asyncio.create_task(self._pass_on(client_side))
                client_side.session[1].write(wire.packed(kind, body))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._clients.discard(client)
            await self._leave(client_side)

    async def _leave(self, client_side: _Client) -> None:
        if client_side.answers is not None:
            client_side.answers.cancel()
            await asyncio.wait({client_side.answers})
        with contextlib.suppress(ConnectionError):
            await client_side.writer.drain()
        client_side.writer.close()
        if client_side.session is not None:  # in the middle of a transaction: it is of no use any more
            client_side.session[1].transport.abort()
            await self._give_back(await self._new_session())

    async def _take(self) -> Session:
        async with self._returned:
            await self._returned.wait_for(lambda: self._free)
            self.transactions += 1
            session = self._free.popleft()
            self.used.add(session)
            return session

    async def _give_back(self, session: Session) -> None:
        async with self._returned:
            self._free.append(session)
            self._returned.notify()

    async def _pass_on(self, client_side: _Client) -> None:
        """Hand on what the server says, until the transaction is over."""
        assert client_side.session is not None
        session = client_side.session
        async for kind, body in wire.messages(session[0]):
            over = kind == b"Z" and body == b"I"
            if over:
                client_side.session = None
                await self._give_back(session)
            client_side.writer.write(wire.packed(kind, body))
            if over:
                return
        client_side.writer.transport.abort()


def _refusal(text: str) -> bytes:
    fields = b"SFATAL\0C08P01\0M" + text.encode() + b"\0\0"
    return wire.packed(b"E", fields)
