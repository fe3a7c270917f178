"""How `ergon worker` hears that it is to stop: signals, and the end of its standard input."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable

from ergon.cli.problems import INTERRUPTED, OK
from ergon.worker.signals import listen


def leave() -> None:
    """End this process now. Whatever is durable stays, whatever is not runs again."""
    os._exit(INTERRUPTED)


def on_signals(stop: asyncio.Future[int], at_second: Callable[[], None] = leave) -> None:
    """First SIGTERM or SIGINT: settle `stop` with the exit code. Second: call `at_second`, in the signal handler."""
    resolve = _resolver(stop)
    listen(lambda number: resolve(INTERRUPTED if number == signal.SIGINT else OK), again=at_second)


def on_eof(stop: asyncio.Future[int]) -> None:
    """Settle `stop` with 0 when standard input ends."""
    resolve = _resolver(stop)

    def read() -> None:
        # Not through sys.stdin, whose lock this thread would still hold when the interpreter ends.
        while os.read(0, 4096):
            pass
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
