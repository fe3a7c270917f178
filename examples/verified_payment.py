"""At most once with a way to find out: `verify` asks the other side whether the interrupted step did happen.

Started without arguments, a first process dies right after the money left; a second one asks the bank and goes on
with what it learns, instead of paying again.
"""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from ergon import DID_NOT_HAPPEN, Happened, Scheduler, SqliteExecutionLog, Worker, flow, idempotency_key, step

BANK = Path("bank.txt")  # the other side: what it has booked, by key


def ask_the_bank(to: str, amount: float) -> object:
    """Called with the step's arguments after an interruption, before anything else happens."""
    key = idempotency_key()
    booked = BANK.exists() and key in BANK.read_text().split()
    print(f"the bank knows of {key}: {booked}", flush=True)
    return Happened(result=f"paid {amount} to {to}") if booked else DID_NOT_HAPPEN


@step(at_most_once=True, verify=ask_the_bank)
async def pay(to: str, amount: float) -> str:
    with BANK.open("a") as bank:
        bank.write(f"{idempotency_key()}\n")
    if "die" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    return f"paid {amount} to {to}"


@flow
async def settle(to: str, amount: float) -> str:
    return await pay(to, amount)


async def main() -> None:
    async with SqliteExecutionLog("payments.db") as log, Worker(log, flows=[settle]):
        handle = await Scheduler(log).schedule(settle.bind("Ann", 40.0), id="settle-ann")
        print(await handle.result())
        print(f"the bank booked {len(BANK.read_text().split())} payment")


if __name__ == "__main__":
    if "die" not in sys.argv:
        subprocess.run([sys.executable, __file__, "die"], check=False)
    asyncio.run(main())
