"""A worker in a process of its own: `python -m tests.storage.postgres.programs URL FILE`."""

from __future__ import annotations

import asyncio
import sys

from ergon import PostgresExecutionLog, Worker, WorkerOptions
from tests.storage.postgres.flows import counted


async def main(url: str) -> None:
    options = WorkerOptions(lease_seconds=3.0, poll_seconds=0.2, reap_seconds=0.2)
    async with PostgresExecutionLog(url, require="D1") as log, Worker(log, flows=[counted], options=options):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
