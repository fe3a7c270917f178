"""Children of another kind: on a queue of their own, and one that outlives its parent.

`invoke(..., detached=True)` starts a flow that is not cancelled when its parent ends. `queue=` puts a child where
other workers take it from, such as those on a machine with more memory.
"""

import asyncio

from ergon import (
    Scheduler,
    SqliteExecutionLog,
    Worker,
    WorkerOptions,
    flow,
    flow_id,
    invoke,
    step,
    wait_signal,
)


@step
async def render(page: int) -> str:
    return f"page {page}"


@flow
async def print_book(pages: int) -> list[str]:
    return [await render(page) for page in range(1, pages + 1)]


@flow
async def audit(order: str) -> str:
    answer = await wait_signal("answer", str)
    return f"{order}: {answer}"


@flow
async def sell(order: str) -> list[str]:
    invoke(audit.bind(order), id=f"audit-{order}", detached=True)  # nobody waits for it
    book = invoke(print_book.bind(2), queue="presses")  # its id is derived from this flow's
    print(f"{flow_id()} waits for {book.flow_id}")
    return await book.result()


async def main() -> None:
    async with (
        SqliteExecutionLog("books.db") as log,
        Worker(log, "shop", flows=[sell, audit]),
        Worker(log, "press", flows=[print_book], queues=["presses"], options=WorkerOptions(capacity=4)),
    ):
        scheduler = Scheduler(log)
        handle = await scheduler.schedule(sell.bind("o1"), id="sell-o1")
        print(await handle.result())
        late = scheduler.handle("audit-o1", str)
        print(
            "the sale has ended, the audit is",
            "under way" if not (await late.status()).is_terminal else "over",
        )
        await late.signal("answer", "all is well", key="a1")
        print(await late.result())


if __name__ == "__main__":
    asyncio.run(main())
