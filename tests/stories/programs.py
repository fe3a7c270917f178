"""Flows for stories that need a process of their own: one that is killed, frozen, or knows other code.

`python -m tests.stories.programs LOG` runs a worker for them until it is killed or its standard input is closed.
Each step leaves a line in the file named by its `marks` argument, which any process can count.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from ergon import (
    DID_NOT_HAPPEN,
    Happened,
    RetryPolicy,
    SqliteExecutionLog,
    Worker,
    WorkerOptions,
    flow,
    idempotency_key,
    step,
)


def note(marks: str, text: str) -> None:
    with Path(marks).open("a", encoding="utf-8") as file:
        file.write(text + "\n")


async def hang_once(marks: str, text: str) -> None:
    """Leave a mark; the first to do so never comes back."""
    first = not Path(marks).exists() or text not in Path(marks).read_text()
    note(marks, text)
    if first:
        await asyncio.sleep(3_600)


@step
async def prepare(marks: str) -> int:
    note(marks, "prepare")
    return os.getpid()


@step
async def deliver(marks: str) -> str:
    await hang_once(marks, f"deliver {idempotency_key()}")
    return "delivered"


@flow
async def delivery(marks: str) -> str:
    await prepare(marks)
    return await deliver(marks)


@step(at_most_once=True)
async def charge(marks: str) -> str:
    await hang_once(marks, "charge")
    return "charged"


@flow
async def payment(marks: str) -> str:
    return await charge(marks)


async def ask_the_bank(marks: str) -> object:
    """The answer is what the test wrote into `MARKS.bank`."""
    note(marks, "verify")
    answer = Path(marks + ".bank").read_text()
    return Happened(result=answer) if answer else DID_NOT_HAPPEN


@step(at_most_once=True, verify=ask_the_bank)
async def transfer(marks: str) -> str:
    await hang_once(marks, "transfer")
    return "transferred"


@flow
async def verified_payment(marks: str) -> str:
    return await transfer(marks)


@step(retry=RetryPolicy(attempts_max=3, first_delay_seconds=0.05, backoff="fixed"))
async def flaky(marks: str) -> str:
    count = Path(marks).read_text().count("flaky") if Path(marks).exists() else 0
    note(marks, f"flaky {idempotency_key()}")
    if count == 0:
        raise ConnectionError("first attempt")
    if count == 1:
        await asyncio.sleep(3_600)
    raise ConnectionError(f"attempt after {count}")


@flow
async def flaky_flow(marks: str) -> str:
    return await flaky(marks)


@step
async def kill_the_worker(marks: str) -> None:
    note(marks, "kill")
    os.kill(os.getpid(), 9)


@flow
async def deadly(marks: str) -> None:
    await kill_the_worker(marks)


@step
async def take_time(marks: str) -> None:
    await asyncio.sleep(0.05)
    note(marks, "done")


@flow
async def harmless(marks: str) -> None:
    await take_time(marks)


@flow
async def nap(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "rested"


FLOWS = (delivery, payment, verified_payment, flaky_flow, deadly, harmless, nap)


async def main(path: str, lease_seconds: float) -> None:
    options = WorkerOptions(
        poll_seconds=0.1, reap_seconds=0.1, lease_seconds=lease_seconds, drain_seconds=2.0
    )
    async with SqliteExecutionLog(path) as log, Worker(log, "elsewhere", flows=FLOWS, options=options):
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 10.0))
