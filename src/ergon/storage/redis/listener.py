"""Hear what other processes changed: one connection that listens, found anew whenever it is lost.

Words that are published while it is away, or to a server that has taken the place of this one, are lost. Whoever relies
on them polls too; and when it is back, it says that anything may have changed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from ergon.core.commit import Hint
from ergon.storage.redis.connection import leave_if_cancelled, pause
from ergon.storage.redis.partitions import Partitions
from ergon.storage.redis.server import Server

_told: msgspec.json.Decoder[tuple[str, bool, list[str]]] = msgspec.json.Decoder(tuple[str, bool, list[str]])


_CONNECTING_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 2.0
"""How often to look whether others have left the server for the one that its address leads to now."""


class Listener:
    """Runs from the opening of a log to its closing."""

    def __init__(self, server: Server, partitions: Partitions, on_hint: Callable[[Hint], None]) -> None:
        self._server, self._partitions, self._on_hint = server, partitions, on_hint
        self._listens = self._stopping = False
        self._task = asyncio.get_running_loop().create_task(self._work(), name="ergon-hints")

    async def stop(self) -> None:
        """Stop listening."""
        self._stopping = True
        if (
            not self._listens
        ):  # cancelled in the middle of connecting, redis-py would leave a connection behind
            await asyncio.wait({self._task}, timeout=_CONNECTING_SECONDS)
        while not self._task.done():  # once may not be enough: see `leave_if_cancelled`
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_CONNECTING_SECONDS)

    async def _work(self) -> None:
        attempt = 0
        while not self._stopping:
            link, began = self._server.subscriber(attempt), time.monotonic()
            channel = link.client.pubsub()
            try:
                await channel.subscribe(self._partitions.channel)
                if attempt:
                    self._on_hint(Hint(elsewhere=True))
                attempt = 0
                self._listens = True
                while not self._stopping:
                    leave_if_cancelled()
                    message = await channel.get_message(ignore_subscribe_messages=True, timeout=_LOOK_SECONDS)
                    if message is not None:
                        self._tell(message)
                    if self._server.left_at > began:
                        attempt = 1  # it listens to a server that is a replica, and perhaps nobody's
                        break
            except Exception:  # noqa: BLE001 - a connection may be lost in any way; a poll stands behind it
                attempt += 1
            finally:
                self._listens = False
                with suppress(Exception):
                    await channel.aclose()  # type: ignore[no-untyped-call]
                    await link.close()
            leave_if_cancelled()
            if not self._stopping:
                await pause(attempt)

    def _tell(self, message: dict[str, Any]) -> None:
        try:
            writer, ready, inbox = _told.decode(message["data"])
        except (msgspec.MsgspecError, KeyError, TypeError):
            writer, ready, inbox = "", True, []  # somebody else's word: look
        if writer != self._partitions.writer:
            self._on_hint(Hint(ready=ready, inbox=frozenset(inbox), elsewhere=True))
