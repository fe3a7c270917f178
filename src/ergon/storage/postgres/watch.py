"""Cut a connection on which the server has been silent for too long.

Every statement of a lane is watched, so watching costs two moments and no timer: one timer looks after many
statements. It is set when none is, and when it comes early, because the statement it was set for has long been
answered, it is set anew for the one that waits then.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from ergon.storage.postgres.driver import Connection


class Watch:
    """Over one connection at a time: `with watch.over(connection): ...`. That raises `TimeoutError` if it has cut."""

    __slots__ = ("_connection", "_has_cut", "_loop", "_seconds", "_timer", "_until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0
        self._has_cut = False

    def over(self, connection: Connection) -> Watch:
        """Watch this connection in the block that follows; the time counts from now."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._connection = connection
        self._until = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(self._until, self._look)
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection = None
        if self._has_cut:
            self._has_cut = False
            if isinstance(error, Exception):
                raise TimeoutError from error

    def end(self) -> None:
        """The lane is closed: leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._connection is None:
            return
        assert self._loop is not None, "a timer has a loop"
        if self._loop.time() < self._until:
            self._timer = self._loop.call_at(self._until, self._look)
            return
        self._has_cut = True
        self._connection.terminate()
