"""Time, chance, identity and log lines that are the same on every replay.

The flow suspends in the middle, so its first half is replayed: it sees the values it saw before, and its log line is
written once.
"""

import asyncio
import logging
import sys

from ergon import (
    Executor,
    InMemoryExecutionLog,
    Scheduler,
    Suspended,
    flow,
    get_logger,
    now,
    random,
    uuid4,
    wait_signal,
)

logger = get_logger("lottery")
SEEN: list[tuple[str, ...]] = []


@flow
async def lottery() -> str:
    drawn = (now().isoformat(), f"{random():.6f}", str(uuid4()))
    SEEN.append(drawn)
    logger.info("drew a ticket")
    await wait_signal("collect")
    return drawn[2]


async def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)
    async with InMemoryExecutionLog() as log:
        executor = Executor(lottery.bind(), log, "lottery-1")
        first = await executor.run()
        assert isinstance(first, Suspended)
        print(first.reason)
        await Scheduler(log).handle("lottery-1").signal("collect")
        await executor.run()
        print(f"drawn {len(SEEN)} times, different tickets: {len(set(SEEN))}")


if __name__ == "__main__":
    asyncio.run(main())
