"""Worker processes for the workloads that need more than one.

`python -m benchmarks.processes LOG FLOW...` opens the log, says `ready`, starts a worker of those flows when told
`go`, and stops when its input ends.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

READY, GO = "ready", "go"


@contextmanager
def worker_process(log: str, *flows: str, lease_seconds: float = 10.0) -> Iterator[subprocess.Popen[str]]:
    """A worker process that is ready to go. Ends with the block."""
    with started(log, *flows, lease_seconds=lease_seconds) as process:
        hear(process, READY)
        yield process


@contextmanager
def started(log: str, *flows: str, lease_seconds: float = 10.0) -> Iterator[subprocess.Popen[str]]:
    """A worker process that is on its way up."""
    command = [sys.executable, "-m", "benchmarks.processes", log, str(lease_seconds), *flows]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.stdin is not None and process.returncode is None:
            process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def say(process: subprocess.Popen[str], line: str) -> None:
    """Send the process a line."""
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str], start: str) -> str:
    """Wait for a line that begins so, and return it."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return line.strip()
    raise RuntimeError(f"the process ended before it said {start!r}")


async def main(place: str, lease_seconds: float, names: list[str]) -> None:
    """Be a worker process."""
    from benchmarks import flows
    from ergon import Worker, WorkerOptions, open_log

    loop = asyncio.get_running_loop()
    async with open_log(place) as log:
        print(READY, flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        options = WorkerOptions(lease_seconds=lease_seconds)
        async with Worker(log, flows=[getattr(flows, name) for name in names], options=options):
            print(f"started {time.perf_counter()}", flush=True)
            await loop.run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3:]))
