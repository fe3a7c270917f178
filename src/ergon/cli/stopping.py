"""How `ergon worker` hears that it is to stop: signals, and the end of its standard input."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Final

from ergon.cli.problems import INTERRUPTED, OK
from ergon.worker.signals import listen

logger = logging.getLogger("ergon.worker")

GRACE_SECONDS: Final = 5.0
"""What a process may take beyond its drain deadline to give its flows back, before it ends as it is."""


def leave() -> None:
    """End this process now. Whatever is durable stays, whatever is not runs again."""
    os._exit(INTERRUPTED)


def leave_if_late(drain_seconds: float) -> None:
    """End this process should it still be there when its drain deadline and a grace are over.

    Code of a flow, or of a step, that computes without end keeps the event loop from ever hearing that it is to stop.
    Callable from a signal handler.
    """
    seconds = min(drain_seconds + GRACE_SECONDS, threading.TIMEOUT_MAX)

    def end() -> None:
        told = f"did not stop within {seconds:g} s of being told to, and is ended; open steps run again\n"
        with contextlib.suppress(OSError):  # whoever read what we say may have died
            os.write(2, told.encode())  # not through sys.stderr, whose lock whoever keeps us may hold
        leave()

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def on_signals(
    stop: asyncio.Future[int], at_second: Callable[[], None] = leave, *, drain_seconds: float | None = None
) -> None:
    """First SIGTERM or SIGINT: settle `stop` with the exit code. Second: call `at_second`, in the signal handler.

    drain_seconds: what the process may take to stop, and a grace, before it is ended. None: as long as it wants.
    """
    resolve = _resolver(stop)

    def tell(number: signal.Signals) -> None:
        if drain_seconds is not None:
            leave_if_late(drain_seconds)
        resolve(INTERRUPTED if number == signal.SIGINT else OK)

    listen(tell, again=at_second)


def on_eof(stop: asyncio.Future[int], *, drain_seconds: float | None = None) -> None:
    """Settle `stop` with 0 when standard input ends, or at once where it is closed. drain_seconds: as for signals."""
    resolve = _resolver(stop)
    is_closed = sys.__stdin__ is None  # since the start: by now its number may be that of another file

    def read() -> None:
        try:
            # Not through sys.stdin, whose lock this thread would still hold when the interpreter ends.
            while not is_closed and os.read(0, 4096):
                pass
        except OSError as error:
            logger.warning("standard input cannot be read (%s), which counts as its end", error)
        finally:
            if drain_seconds is not None:
                leave_if_late(drain_seconds)
            resolve(OK)

    threading.Thread(target=read, name="ergon-stdin", daemon=True).start()


def _resolver(stop: asyncio.Future[int]) -> Callable[[int], None]:
    """Settle the future from a signal handler or a thread."""
    loop = asyncio.get_running_loop()

    def settle(code: int) -> None:
        if not stop.done():
            stop.set_result(code)

    def from_anywhere(code: int) -> None:
        loop.call_soon_threadsafe(settle, code)

    return from_anywhere
