"""Change a flow while old ones are under way: `patched` for a change inside it, versions for a whole deploy.

The first worker runs yesterday's code and leaves a flow in the middle; the second runs today's.
"""

import asyncio

from ergon import InMemoryExecutionLog, Scheduler, Worker, flow, patched, step, wait_signal


@step
async def check_stock(order: str) -> str:
    return "in stock"


@step
async def reserve(order: str) -> str:
    return "shelf A3"


@step
async def ship(order: str) -> str:
    return f"{order} shipped"


@flow(name="order")
async def yesterday(order: str) -> list[str]:
    shelf = await reserve(order)
    await wait_signal("paid")
    return [shelf, await ship(order)]


@flow(name="order")
async def today(order: str) -> list[str]:
    # Flows that passed this line with yesterday's code go on as they began. Once none is left: `deprecate_patch`.
    checked = [await check_stock(order)] if patched("check-stock-first") else []
    shelf = await reserve(order)
    await wait_signal("paid")
    return [*checked, shelf, await ship(order)]


async def main() -> None:
    async with InMemoryExecutionLog() as log:  # gone afterwards, so this program can be started again
        scheduler = Scheduler(log)
        async with Worker(log, flows=[yesterday], versions="1.0"):
            old = await scheduler.schedule(yesterday.bind("old"), id="old")
            while "paid" not in await old.why():
                await asyncio.sleep(0.02)
        async with Worker(log, flows=[today], versions=">=1.1,<2"):
            new = await scheduler.with_version("1.1").schedule(today.bind("new"), id="new")
            left = await scheduler.with_version("1.0").schedule(today.bind("left"), id="left")
            for handle in (old, new):
                await handle.signal("paid")
                print(await handle.result())
            print(await left.why())  # nobody runs 1.0 any more


if __name__ == "__main__":
    asyncio.run(main())
