"""The worker: a real process of its own, started and killed as an operator or a kernel would.

It reads from a pipe that only we hold open: when the demo itself is killed, the pipe ends and the worker stops.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Final

from ergon.demo.home import DemoError, Home
from ergon.demo.ledger import PAUSE

STOP_SECONDS: Final = 8.0
FAILURES_MAX: Final = 4
"""Deaths in a row without any progress: then something is wrong that starting again does not mend."""


class Crew:
    """One worker at a time."""

    def __init__(self, home: Home, *, pause_seconds: float = 0.0) -> None:
        """`pause_seconds`: how much longer each step body takes."""
        self._home = home
        self._pause_seconds = pause_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    @property
    def pid(self) -> int:
        """The worker's process id; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start a worker: the same command a user would type."""
        command = [
            sys.executable,
            "-m",
            "ergon",
            "worker",
            "ergon.demo.flows",
            "--name",
            "demo",
            "--drain",
            "3",
        ]
        # The log is the demo's own, whichever the user works with otherwise.
        env = {
            name: value for name, value in os.environ.items() if name not in ("ERGON_LOG", "ERGON_NAMESPACE")
        }
        with self._home.worker_log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603
                [*command, "--until-eof", "--log", str(self._home.log)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the demo, which stops the worker itself
                env={**env, "ERGON_DEBUG": "1", PAUSE: f"{self._pause_seconds}"},
            )
        self.started_at = time.monotonic()

    def kill(self) -> None:
        """SIGKILL: the process ends between two instructions and cleans up nothing."""
        assert self._process is not None
        self._process.kill()
        self._gone()

    def ended(self) -> str | None:
        """How the worker ended by itself or by somebody else's hand, or None while it lives."""
        if self._process is None or self._process.poll() is None:
            return None
        code = self._process.returncode
        self._gone()
        if code < 0:
            return f"somebody else's {signal.Signals(-code).name}"
        return f"exit code {code}"

    def stop(self) -> None:
        """Let it drain; kill it when it does not."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._gone()

    def _gone(self) -> None:
        assert self._process is not None
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None

    def give_up(self) -> DemoError:
        """What to say when the worker dies again and again."""
        lines = self._home.worker_log.read_text(errors="replace").splitlines()[-3:]
        said = " / ".join(line.strip() for line in lines) or "nothing"
        return DemoError(
            f"the worker died {FAILURES_MAX} times without any progress. Its last words: {said} "
            f"(more in {self._home.worker_log})"
        )
