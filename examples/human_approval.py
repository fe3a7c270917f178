"""Wait for a person, for as long as it takes but not longer: a signal with a time limit and a reminder.

While it waits the flow is a row in the log: no task, no memory, no worker needed.
"""

import asyncio
from dataclasses import dataclass

from ergon import Scheduler, SqliteExecutionLog, Worker, flow, step, wait_signal

REMIND_AFTER = 0.3  # seconds; days in real life
GIVE_UP_AFTER = 1.0


@dataclass
class Answer:
    by: str
    approved: bool


@step
async def ask(person: str, text: str) -> None:
    print(f"to {person}: {text}")


@flow
async def expense(amount: float, approver: str) -> str:
    await ask(approver, f"please approve {amount:.2f}")
    for limit, last in ((REMIND_AFTER, False), (GIVE_UP_AFTER, True)):
        try:
            async with asyncio.timeout(limit):
                answer = await wait_signal("answer", Answer)
        except TimeoutError:
            if not last:
                await ask(approver, "a reminder: the expense still waits for you")
        else:
            return f"{'approved' if answer.approved else 'refused'} by {answer.by}"
    return "nobody answered"


async def main() -> None:
    async with SqliteExecutionLog("expenses.db") as log, Worker(log, flows=[expense]):
        scheduler = Scheduler(log)
        prompt = await scheduler.schedule(expense.bind(40.0, "Ann"), id="expense-1")
        ignored = await scheduler.schedule(expense.bind(5000.0, "Bob"), id="expense-2")
        # As a web handler would, or: ergon signal expense-1 answer --value '{"by": "Ann", "approved": true}'
        await prompt.signal("answer", Answer(by="Ann", approved=True), key="click-1")
        await prompt.signal(
            "answer", Answer(by="Ann", approved=True), key="click-1"
        )  # a double click changes nothing
        print("expense-1:", await prompt.result())
        print("expense-2:", await ignored.result())


if __name__ == "__main__":
    asyncio.run(main())
