"""A worker in a process of its own: `python -m tests.storage.postgres.programs URL FILE`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from ergon import PostgresExecutionLog, Worker, WorkerOptions, flow, step


@step
async def count(file: str, number: int) -> int:
    with Path(file).open("a") as ran:
        ran.write(f"{number}\n")
    await asyncio.sleep(0.005)
    return number


@flow
async def counted(file: str, steps: int) -> int:
    done = [await count(file, number) for number in range(steps)]
    return len(done)


async def main(url: str) -> None:
    options = WorkerOptions(lease_seconds=3.0, poll_seconds=0.2, reap_seconds=0.2)
    async with PostgresExecutionLog(url, require="D1") as log, Worker(log, flows=[counted], options=options):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
