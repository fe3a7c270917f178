"""Start, stop and kill processes from outside. Nothing of Ergon is imported here."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.memory import memory

ROOT: Final = Path(__file__).resolve().parents[2]


class Child:
    """One forked process. Signals go through a pid file descriptor, so never to another process of the same pid."""

    def __init__(self, zygote: Zygote, pid: int, err: Path) -> None:
        self.pid = pid
        self.err = err
        self.status: int | None = None
        """The exit code, or minus the signal that ended it; None while it lives."""
        self._zygote = zygote
        try:
            self._fd = os.pidfd_open(pid)
        except ProcessLookupError:  # it ended at once
            self._fd = -1

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False when the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            if self._fd >= 0:
                signal.pidfd_send_signal(self._fd, number)
                return True
        return False

    def is_stopped(self) -> bool:
        """True while it is held by SIGSTOP: every thread of it, since the kernel says so only then."""
        try:
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:
            return False

    def wait(self, seconds: float) -> int | None:
        """Wait until it has ended; None when it has not after `seconds`."""
        until = time.monotonic() + seconds
        while self.status is None and self._zygote.pump(until - time.monotonic()):
            pass
        return self.status

    def wait_stopped(self, seconds: float) -> bool:
        """Wait until it is held by SIGSTOP. False when it ended, or was not stopped in time."""
        until = time.monotonic() + seconds
        while not self.is_stopped():
            if self.status is not None or time.monotonic() > until:
                return False
            self._zygote.pump(0.002)
        return True

    def ended(self, status: int) -> None:
        """The zygote says that it is gone."""
        self.status = status
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def errors(self) -> str:
        """What it wrote to stderr."""
        return self.err.read_text(errors="replace") if self.err.exists() else ""


class Zygote:
    """A process to fork from. Use as a context manager."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = list(modules)
        self._children: dict[int, Child] = {}
        self._buffer = b""
        self._started: list[Child] = []
        self._err = Path(os.devnull)

    def __enter__(self) -> Self:
        # Bytes come unbuffered and `select` says when: a line read ahead would never wake it.
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "tests.crash.zygote", *self._modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            bufsize=0,
        )
        self._ready = False
        while not self._ready:
            if not self.pump(30):
                raise TimeoutError("the zygote did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in list(self._children.values()):
            child.send(signal.SIGKILL)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def fork(self, run: str, *, err: Path, env: dict[str, str] | None = None, **args: Any) -> Child:
        """Start a child that calls `module:function` with these arguments."""
        assert self._process.stdin is not None
        request = {"run": run, "args": args, "env": env or {}, "err": str(err)}
        self._err = err
        self._process.stdin.write(json.dumps(request, default=str).encode() + b"\n")
        while not self._started:
            if not self.pump(10):
                raise TimeoutError("the zygote does not answer")
        return self._started.pop(0)

    def pump(self, seconds: float) -> bool:
        """Take in what the zygote says; False when it said nothing for `seconds`."""
        assert self._process.stdout is not None
        waiting = select.poll()  # any number of files may be open
        waiting.register(self._process.stdout)
        ready = waiting.poll(max(seconds, 0) * 1_000)
        if not ready:
            return False
        text = os.read(self._process.stdout.fileno(), 65_536)
        if not text:
            raise RuntimeError("the zygote died")
        self._buffer += text
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._hear(json.loads(line))
        return True

    def _hear(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._ready = True
        elif "status" not in message:
            pid = message["pid"]
            child = self._children[pid] = Child(self, pid, self._err)
            self._started.append(child)
        elif message["pid"] in self._children:
            self._children.pop(message["pid"]).ended(message["status"])


def scratch(base: Path) -> Path:
    """A folder in memory where there is room, else this one."""
    folder = memory()
    return base if folder is None else Path(tempfile.mkdtemp(prefix="ergon-crash-", dir=folder))
