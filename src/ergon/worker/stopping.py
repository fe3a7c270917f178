"""Wait for the word to stop that the operating system or a person gives a program.

What follows is the caller's: leaving `async with Worker(...)` drains the worker.
"""

from __future__ import annotations

import asyncio
import signal
import threading

from ergon.errors import UsageError
from ergon.worker.signals import listen


async def wait_told_to_stop() -> signal.Signals:
    """Wait for SIGTERM or Ctrl-C (SIGINT), and return which it was.

        async with SqliteExecutionLog("orders.db") as log, Worker(log, flows=[process]):
            await wait_told_to_stop()

    Several may wait at once, such as one for each worker of a program: all are told by the same signal.
    Leaving the block lets running steps end, for at most `WorkerOptions(drain_seconds=...)`, and gives everything back.
    From the first signal on the handlers are again what they were before the call, so that a second one ends the
    program at once; that is safe as well. A program that handles these signals already, such as a web server, has
    no need of this: it leaves the block, or calls `worker.shutdown()`, where it shuts down itself.

    Raises `UsageError` outside the main thread, where Python does not handle signals.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UsageError(
            "wait_told_to_stop() was called outside the main thread, where Python handles no signals; call it in the "
            "event loop of the main thread, or end the worker with shutdown()"
        )
    loop = asyncio.get_running_loop()
    told: asyncio.Future[signal.Signals] = loop.create_future()

    def settle(number: signal.Signals) -> None:
        if not told.done():
            told.set_result(number)

    leave = listen(lambda number: loop.call_soon_threadsafe(settle, number))
    try:
        return await told
    finally:
        leave()
