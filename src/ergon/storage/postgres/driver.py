"""The driver as this log uses it, with types: asyncpg itself has none. The only file that imports it.

asyncpg is imported when the first log connects, never by `import ergon`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol, cast

from ergon.errors import LogRefused

Row = Sequence[Any]


class Connection(Protocol):
    """One session of the server."""

    async def execute(self, sql: str, *values: Any) -> str:
        """Run a statement; return what the server says of it, such as `INSERT 0 5`."""
        ...

    async def fetch(self, sql: str, *values: Any) -> list[Row]:
        """Return every row."""
        ...

    async def fetchrow(self, sql: str, *values: Any) -> Row | None:
        """Return the first row, or None."""
        ...

    async def add_listener(self, channel: str, callback: Callable[[Any, int, str, str], None]) -> None:
        """Call back for each notification."""
        ...

    def add_log_listener(self, callback: Callable[[Any, Any], None]) -> None:
        """Call back for each warning and notice of the server."""
        ...

    def add_termination_listener(self, callback: Callable[[Any], None]) -> None:
        """Call back when the connection ends, however it does."""
        ...

    async def close(self) -> None:
        """Say goodbye and close."""
        ...

    def terminate(self) -> None:
        """Close without a word."""
        ...

    def is_closed(self) -> bool:
        """Tell whether it has ended."""
        ...


def driver() -> ModuleType:
    """Import asyncpg, or say how to install it."""
    try:
        import asyncpg
    except ImportError as error:
        raise LogRefused(
            "a log on PostgreSQL needs the package asyncpg; install it with: pip install 'ergon[postgres]'"
        ) from error
    return cast("ModuleType", asyncpg)


async def dial(dsn: str, **options: Any) -> Connection:
    """Open a connection."""
    return cast("Connection", await driver().connect(dsn, **options))


def changed(said: str) -> int:
    """How many rows a statement changed, by what the server said of it."""
    return int(said.rpartition(" ")[2])
