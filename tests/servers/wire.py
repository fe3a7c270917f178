"""As much of PostgreSQL's protocol as whoever stands between a client and its server has to read."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

Message = tuple[bytes, bytes]
"""Its kind, one byte (none for what opens a connection), and what follows the length."""


async def startup(reader: asyncio.StreamReader) -> bytes:
    """What a client sends first."""
    (length,) = struct.unpack("!I", await reader.readexactly(4))
    return await reader.readexactly(length - 4)


async def messages(reader: asyncio.StreamReader) -> AsyncIterator[Message]:
    """What follows, until the connection ends."""
    while True:
        try:
            kind = await reader.readexactly(1)
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            yield kind, await reader.readexactly(length - 4)
        except (asyncio.IncompleteReadError, ConnectionError):
            return


def packed(kind: bytes, body: bytes) -> bytes:
    """A message as it is sent."""
    return kind + struct.pack("!I", len(body) + 4) + body


class Statements:
    """Tells which SQL a message of a client runs."""

    def __init__(self) -> None:
        self._prepared: dict[bytes, str] = {}

    def run_by(self, kind: bytes, body: bytes) -> str | None:
        """The SQL that this message makes the server run, None for other messages."""
        if kind == b"Q":
            return _without_comment(body[:-1])
        if kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            self._prepared[name] = _without_comment(sql)
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            return self._prepared.get(name)
        return None


async def connect(socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the server itself."""
    return await asyncio.open_unix_connection(str(socket), limit=1 << 24)


def _without_comment(sql: bytes) -> str:
    lines = sql.decode().strip().splitlines()
    while lines and lines[0].startswith("--"):
        lines.pop(0)
    return "\n".join(lines)
