"""`ergon worker --processes N`: a parent that starts worker processes, starts them again, and stops them together.

The parent executes nothing and opens no log: each child is a worker like any other, with a lease of its own. A child
reads from a pipe that only the parent holds open, so that children drain and end when the parent is killed.

A child has ended when its process has, and not when nobody holds its pipes any more: processes that it started inherit
them, and may live on. So the pipes are made here: `Process.wait` of some versions of Python waits also for those that
asyncio makes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import STDOUT, Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from io import FileIO
from typing import Any, Final

from ergon.cli.output import clean
from ergon.cli.problems import BAD_INPUT, INTERNAL, INTERRUPTED
from ergon.cli.stopping import GRACE_SECONDS

logger = logging.getLogger("ergon.worker")

DELAY_SECONDS: Final = 0.5
"""Before a child that died is started again, the first time."""
DELAY_SECONDS_MAX: Final = 30.0
SOUND_SECONDS: Final = 60.0
"""A child that lived for so long did not die of what the one before it died of."""
KILL_SECONDS: Final = 2.0
"""A child ends itself when its drain deadline and its grace are over; one that has not by then is killed."""
LAST_WORDS_SECONDS: Final = 1.0
"""How long the words of a child that has ended are waited for, while a process that it started holds its pipe open."""
LINE_BYTES_MAX: Final = 65_536


def next_delay(before: float | None, lived_seconds: float) -> float:
    """Seconds to wait before a child is started again, twice as long each time that it dies soon. None: the first."""
    if before is None or lived_seconds >= SOUND_SECONDS:
        return DELAY_SECONDS
    return min(before * 2, DELAY_SECONDS_MAX)


class Fleet:
    """The children of one parent.

    names: one for each child; `command(name)` is what to run, such as `["python", "-m", "ergon", "worker", ...]`.
    """

    def __init__(
        self, names: Sequence[str], command: Callable[[str], Sequence[str]], *, drain_seconds: float
    ) -> None:
        self._names, self._command, self._drain_seconds = names, command, drain_seconds
        self._alive: dict[str, Process] = {}
        self._number: signal.Signals | None = None
        """What children are stopped with, once they are."""

    async def run(self, stop: asyncio.Future[int]) -> int:
        """Keep the children running until `stop` is settled; then stop them and return its exit code.

        Returns 2 when a child ends with that: starting it again would not mend what it was told wrong. A log that is
        busy or full is no such thing: see `problems.ENDINGS`.
        """
        keepers = [asyncio.create_task(self._keep(name, stop), name=f"ergon-{name}") for name in self._names]
        either: list[asyncio.Future[Any]] = [stop, *keepers]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():  # a keeper broke off: a mistake of ours, told once the others have stopped
            stop.set_result(INTERNAL)
        code = stop.result()
        logger.info(
            "stopping %d workers: running steps have %g s to end", len(self._alive), self._drain_seconds
        )
        self._send(signal.SIGINT if code == INTERRUPTED else signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=self._drain_seconds + GRACE_SECONDS + KILL_SECONDS)
        if late:
            logger.warning("%d workers did not end in time and are killed; their steps run again", len(late))
            self._send(signal.SIGKILL)
            _, late = await asyncio.wait(late, timeout=KILL_SECONDS)
        for keeper in late:  # not even the system can end a process that waits for a disk that is gone
            logger.warning("%s does not end though it was killed; it is left alone", keeper.get_name())
            keeper.cancel()
        for keeper in keepers:
            if keeper not in late:
                keeper.result()
        return code

    def leave(self) -> None:
        """Kill every child and end the parent at once: what is durable stays, the rest runs again."""
        self._send(signal.SIGKILL)
        os._exit(INTERRUPTED)

    async def _keep(self, name: str, stop: asyncio.Future[int]) -> None:
        """Run one child again and again."""
        delay: float | None = None
        while not stop.done():
            started_at, code = time.monotonic(), None
            try:
                code = await self._run_once(name)
                ended = _how(code)
            except (OSError, RuntimeError) as error:  # no more processes, files or threads at the moment
                ended = f"could not be started ({error})"
            lived = time.monotonic() - started_at
            if stop.done():
                return
            if code == BAD_INPUT:
                stop.set_result(BAD_INPUT)
                return
            delay = next_delay(delay, lived)
            logger.warning("%s %s after %.1f s; it is started again in %g s", name, ended, lived, delay)
            await asyncio.wait({stop}, timeout=delay)

    async def _run_once(self, name: str) -> int:
        """Run one child until it has ended; return its exit code. Raises `OSError` where it cannot be started."""
        with _pipe() as (stdin, _held_open), _pipe() as (said, stdout):
            async with _lines_of(said) as lines:
                process = await asyncio.create_subprocess_exec(
                    *self._command(name),
                    stdin=stdin,
                    stdout=stdout,
                    stderr=STDOUT,
                    start_new_session=True,  # Ctrl-C is for the parent, which passes it on
                )
                stdin.close()
                stdout.close()
                relay = asyncio.create_task(_relay(name, lines), name=f"ergon-{name}-says")
                try:
                    code = await self._ended(name, process)
                    await asyncio.wait({relay}, timeout=LAST_WORDS_SECONDS)
                finally:
                    relay.cancel()
        return code

    async def _ended(self, name: str, process: Process) -> int:
        """Wait until a child has ended, and let it be told to stop meanwhile."""
        logger.info("%s started (pid %d)", name, process.pid)
        self._alive[name] = process
        if self._number is not None:  # told to stop while it was being started
            _send(process, self._number)
        try:
            return await process.wait()
        finally:
            del self._alive[name]

    def _send(self, number: signal.Signals) -> None:
        self._number = number
        for process in list(self._alive.values()):
            _send(process, number)


def _send(process: Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """A pipe, to read from and to write to."""
    reader, writer = os.pipe()
    with FileIO(reader, "rb") as read_end, FileIO(writer, "wb") as write_end:
        yield read_end, write_end


@contextlib.asynccontextmanager
async def _lines_of(pipe: FileIO) -> AsyncIterator[asyncio.StreamReader]:
    lines = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), pipe
    )
    try:
        yield lines
    finally:
        transport.close()


async def _relay(name: str, said: asyncio.StreamReader) -> None:
    """Print what a child says, each line with its name, until it has nothing more to say."""
    rest = b""
    while data := await said.read(LINE_BYTES_MAX):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            lines, rest = [*lines, rest], b""
        for line in lines:
            _say(name, line)
    if rest:
        _say(name, rest)


def _say(name: str, line: bytes) -> None:
    """Print a line. When nobody reads it any more the child must still be read, or it stands still in its logging."""
    with contextlib.suppress(OSError):
        print(f"{name}: {clean(line.decode(errors='replace').rstrip())}", file=sys.stderr, flush=True)


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
