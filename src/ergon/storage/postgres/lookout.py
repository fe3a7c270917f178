"""Where nobody can listen, look now and then whether anybody wrote: behind a pooler notifications reach no one.

The server's next transaction number tells; whatever makes it grow may be ours to hear of.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from ergon.core.commit import Hint
from ergon.errors import ErgonError
from ergon.storage.postgres.driver import Connection

_EVERY_SECONDS: Final = 0.5
_NEXT: Final = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"


class Lookout:
    """Does what `Listener` does, later."""

    def __init__(
        self,
        read: Callable[[Callable[[Connection], Awaitable[str]]], Awaitable[str]],
        on_hint: Callable[[Hint], None],
    ) -> None:
        self._read, self._on_hint = read, on_hint
        self._task = asyncio.get_running_loop().create_task(self._run(), name="ergon-lookout")

    def tell(self) -> None:
        """The others look for themselves."""

    async def close(self) -> None:
        """Stop looking."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        seen = ""
        while True:
            with contextlib.suppress(ErgonError):  # the server is away: whoever writes says so
                found = await self._read(_next)
                if seen and found != seen:
                    self._on_hint(Hint(elsewhere=True))
                seen = found
            await asyncio.sleep(_EVERY_SECONDS)


async def _next(connection: Connection) -> str:
    row = await connection.fetchrow(_NEXT)
    assert row is not None, "the statement returns one row"
    return str(row[0])
