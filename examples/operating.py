"""What an operator does: start by name, later, with a limit; ask why; pause, retry, kill.

The client part of this program needs no code of the flow: `ergon why import-1` and `ergon resume import-1` would do.
"""

import asyncio

from ergon import (
    FlowCancelled,
    RetryPolicy,
    ScheduleOptions,
    Scheduler,
    Worker,
    flow,
    open_log,
    step,
    wait_signal,
)

BROKEN = {"server"}
HOURLY = RetryPolicy(attempts_max=9, backoff="fixed", first_delay_seconds=3_600, delay_max_seconds=3_600)


@step(retry=HOURLY)
async def fetch(source: str) -> str:
    if BROKEN:
        raise ConnectionError("no answer")
    return f"rows of {source}"


@flow(name="import", retry=RetryPolicy(attempts_max=2, first_delay_seconds=0.05))
async def import_rows(source: str) -> str:
    rows = await fetch(source)  # when the flow is tried again, this result is still there
    return f"{rows}, {await wait_signal('approval', str)}"


async def main() -> None:
    # Refuses to start where power loss could lose work.
    async with open_log("imports.db", require="D3") as log:
        scheduler = Scheduler(log)
        handle = await scheduler.schedule_named("import", {"source": "crm"}, id="import-1", delay=86_400)
        print(await handle.why())
        await handle.reschedule()  # now, instead of tomorrow
        async with Worker(log, flows=[import_rows]):
            while "fetch" not in await handle.why():
                await asyncio.sleep(0.02)
            BROKEN.clear()
            await handle.retry_now()  # instead of in an hour
            while "approval" not in await handle.why():
                await asyncio.sleep(0.02)
            await handle.pause("the books are being closed")
            print(await handle.why())
            await handle.signal("approval", "approved", key="click-1")  # kept while it is paused
            await handle.resume()
            print(await handle.result())
            await limits(scheduler)


async def limits(scheduler: Scheduler) -> None:
    """A flow that takes too long is cancelled, though no worker may run then; kill runs no more of its code."""
    short = ScheduleOptions(timeout=0.2)
    slow = await scheduler.schedule(import_rows.bind("slow"), id="import-2", options=short)
    stuck = await scheduler.schedule(import_rows.bind("stuck"), id="import-3", delay=60)
    await stuck.kill("started by mistake")
    for handle in (slow, stuck):
        try:
            await handle.result()
        except FlowCancelled as error:
            print(error)
    for name in ("import-1", "import-2", "import-3"):
        await scheduler.delete(name)  # so that this program can be started again


if __name__ == "__main__":
    asyncio.run(main())
