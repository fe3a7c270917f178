"""Renew leases while the event loop is blocked: a thread with an event loop and a connection of its own.

It begins with the first renewal that is asked for, and lets its connection go when nobody asks any more. A renewal
that fails is not repeated: whoever asks does so again, or the lease runs out.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from copy import copy
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Final

from ergon.storage.failpoints import Failpoint
from ergon.storage.postgres.clock import ServerClock
from ergon.storage.postgres.connection import Settings, begin, open_session
from ergon.storage.postgres.driver import Connection
from ergon.storage.postgres.leases import RENEW

_IDLE_SECONDS: Final = 30.0
_ANSWER_SECONDS: Final = 5.0
_Ask = tuple[str, float]


class Keeper:
    """May be asked from any thread."""

    def __init__(self, settings: Settings, clock: ServerClock, failpoint: Failpoint | None) -> None:
        self._settings, self._clock, self._failpoint = settings, clock, failpoint
        self._asked: SimpleQueue[_Ask | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def ask(self, worker_id: str, lease_seconds: float) -> None:
        """Ask for one renewal; returns at once."""
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ergon-keeper", daemon=True)
                self._thread.start()
            self._asked.put((worker_id, lease_seconds))

    def close(self) -> None:
        """Let the thread end."""
        with self._lock:
            self._closed = True
            self._asked.put(None)

    def _run(self) -> None:
        with contextlib.suppress(Exception), asyncio.Runner() as runner:
            connection: Connection | None = None
            while (asked := self._next(idle=connection is None)) is not None:
                connection = runner.run(self._renew(connection, asked))
            if connection is not None:
                runner.run(_say_goodbye(connection))
        with self._lock:
            self._thread = None
            if not self._asked.empty() and not self._closed:
                self._thread = threading.Thread(target=self._run, name="ergon-keeper", daemon=True)
                self._thread.start()

    def _next(self, *, idle: bool) -> dict[str, float] | None:
        """Wait for renewals; None when there will be none for a while."""
        wanted: dict[str, float] = {}
        with contextlib.suppress(Empty):
            asked = self._asked.get(timeout=None if idle else _IDLE_SECONDS)
            while asked is not None:
                wanted[asked[0]] = asked[1]  # several for one worker are one
                asked = self._asked.get_nowait()
        return wanted or None

    async def _renew(self, connection: Connection | None, wanted: dict[str, float]) -> Connection | None:
        if self._failpoint is not None:
            self._failpoint.before(["keep"] * len(wanted))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if connection is None or connection.is_closed():
                    # What the log knows of its servers is for this thread to read, not to write.
                    known = replace(self._settings, turn=copy(self._settings.turn))
                    connection = await open_session(known, self._clock)
                _, lease_now = self._clock.read(await begin(connection, self._settings.address))
                for worker_id, seconds in wanted.items():
                    await connection.execute(RENEW, worker_id, lease_now, seconds)
                await connection.execute("COMMIT")
        except Exception:  # noqa: BLE001 - whoever asked hears nothing, and asks again
            if connection is not None:
                connection.terminate()
            return None
        if self._failpoint is not None:
            self._failpoint.after()
        return connection


async def _say_goodbye(connection: Connection) -> None:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await connection.close()
    except Exception:  # noqa: BLE001 - it ends in any case
        connection.terminate()
