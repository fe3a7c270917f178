"""Kinds of step: a coroutine, a plain function on a thread, one in another process, and one that nobody decorated.

To the flow they look the same: each is awaited, and its result is recorded once.
"""

import asyncio
import json
import os
import threading

from ergon import Executor, InMemoryExecutionLog, flow, run_step, step


@step
async def fetch(url: str) -> str:
    """On the event loop: for work that awaits."""
    await asyncio.sleep(0.01)
    return json.dumps({"url": url, "words": ["one", "two"]})


@step
def count(words: list[str]) -> tuple[int, bool]:
    """A plain `def` runs on a thread: for libraries that block."""
    return len(words), threading.current_thread() is threading.main_thread()


@step(process=True)
def largest_prime(below: int) -> tuple[int, int]:
    """In a process of a pool: for work that keeps a core busy. Must be a function of a module."""
    primes = [n for n in range(2, below) if all(n % d for d in range(2, int(n**0.5) + 1))]
    return primes[-1], os.getpid()


@flow
async def report(url: str) -> str:
    text = await fetch(url)
    page = await run_step(json.loads, text)  # any callable, without decorating it
    shouted = await run_step(page["url"].upper, name="shout")  # under a better name
    (words, on_main), (prime, pid) = await asyncio.gather(count(page["words"]), largest_prime(5_000))
    elsewhere = await run_step(os.getpid) != pid
    return f"{shouted}: {words} words, on the main thread: {on_main}; {prime} in another process: {elsewhere}"


async def main() -> None:
    async with InMemoryExecutionLog() as log:
        print(await Executor(report.bind("example.org"), log, "report-1").run())


if __name__ == "__main__":
    asyncio.run(main())
