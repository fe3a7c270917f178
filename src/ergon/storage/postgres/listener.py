"""Hear at once that another process wrote, and tell the others: LISTEN and NOTIFY on a connection of their own.

These are hints. They are sent after the transaction they speak of, by a transaction that waits for no disk, a few
hundred a second at most; one that is lost costs the time until somebody looks by himself. After the connection was
cut nobody knows what was missed, so listeners are told that anything may have changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

from ergon.core.commit import Hint
from ergon.storage.postgres.clock import ServerClock
from ergon.storage.postgres.connection import Settings, open_session
from ergon.storage.postgres.driver import Connection

logger: Final = logging.getLogger("ergon.storage")
_PAUSE_SECONDS: Final = 0.005
"""Between two notifications of this process."""
_DIAL_AGAIN_SECONDS: Final = (0.05, 5.0)
_SILENT_SECONDS: Final = 30.0
"""How often to see whether the connection still leads somewhere."""
_NOTIFY: Final = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)"


class Listener:
    """Owns its connection; when that is cut it dials again, for as long as the log is open."""

    def __init__(
        self,
        settings: Settings,
        clock: ServerClock,
        *,
        channel: str,
        me: str,
        on_hint: Callable[[Hint], None],
    ) -> None:
        """`me`: how this log signs what it tells, so that it does not hear itself."""
        self._settings, self._clock, self._channel, self._me, self._on_hint = (
            settings, clock, channel, me, on_hint,
        )  # fmt: skip
        self._loop = asyncio.get_running_loop()
        self._something = asyncio.Event()
        self._to_tell = False
        self._heard = False
        self._connection: Connection | None = None
        self._task = self._loop.create_task(self._run(), name="ergon-listener")

    def tell(self) -> None:
        """Let other processes look, soon."""
        self._to_tell = True
        self._something.set()

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        pause, longest = _DIAL_AGAIN_SECONDS
        wait = pause
        was_cut = False
        while True:
            try:
                connection = self._connection = await open_session(self._settings, self._clock)
                await connection.add_listener(self._channel, self._on_notification)
                connection.add_termination_listener(lambda _: self._something.set())
                if was_cut:
                    self._hear()
                wait = pause
                await self._serve(connection)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - hints are worth no failure; whatever it is, dial again
                logger.debug("hints of log %s are cut off: %s", self._settings.where, type(error).__name__)
            finally:
                self._drop()
            was_cut = True
            await asyncio.sleep(wait)
            wait = min(2 * wait, longest)

    async def _serve(self, connection: Connection) -> None:
        turn = self._settings.turn
        place = turn.place
        while not connection.is_closed() and place == turn.place:
            try:
                async with asyncio.timeout(_SILENT_SECONDS):
                    await self._something.wait()
            except TimeoutError:
                async with asyncio.timeout(_SILENT_SECONDS):
                    await connection.execute("SELECT 1")
                continue
            self._something.clear()
            if self._to_tell and not connection.is_closed():
                self._to_tell = False
                async with asyncio.timeout(_SILENT_SECONDS):
                    await connection.fetch(_NOTIFY, self._channel, self._me)
                await asyncio.sleep(_PAUSE_SECONDS)

    def _on_notification(self, _connection: Any, _pid: int, _channel: str, payload: str) -> None:
        if payload != self._me:
            self._hear()

    def _hear(self) -> None:
        if not self._heard:
            self._heard = True
            self._loop.call_soon(self._pass_on)

    def _pass_on(self) -> None:
        self._heard = False
        self._on_hint(Hint(elsewhere=True))

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is of no use any more, in whatever state
                connection.terminate()
