"""At most once: a step that must never be started twice, because nobody can take it back.

Started without arguments, this program plays both parts: a first process dies in the middle of the step, a second
one takes the flow over and is told so, instead of sending the letter again.
"""

import asyncio
import os
import signal
import subprocess
import sys

from ergon import Scheduler, SqliteExecutionLog, StepInterrupted, Worker, flow, step


@step(at_most_once=True)
async def send_letter(to: str) -> str:
    print(f"a letter to {to} leaves the house", flush=True)
    if "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    return "sent"


@flow
async def remind(customer: str) -> str:
    try:
        return await send_letter(customer)
    except StepInterrupted:
        return f"unknown whether the letter to {customer} left: a person looks into it"


async def main() -> None:
    async with SqliteExecutionLog("letters.db") as log, Worker(log, flows=[remind]):
        handle = await Scheduler(log).schedule(remind.bind("Ann"), id="remind-ann")
        print(await handle.result())


if __name__ == "__main__":
    if "die" not in sys.argv:
        first = subprocess.run([sys.executable, __file__, "die"], check=False)
        print(f"the first process ended with {first.returncode}", flush=True)
    asyncio.run(main())
