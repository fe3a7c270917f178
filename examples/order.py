"""An order: two steps at once, a person who may answer in time, a pause. All of it survives a crash.

    python order.py              nobody answers within two seconds
    python order.py approve      somebody does

Stop it anywhere and start it again: it goes on where it stood, and charges nobody twice.
"""

import asyncio
import sys
from dataclasses import dataclass
from enum import StrEnum

from ergon import RetryPolicy, Scheduler, SqliteExecutionLog, Worker, flow, idempotency_key, step, wait_signal


@dataclass
class Order:
    id: str
    amount: float


@dataclass
class Payment:
    reference: str
    amount: float


@dataclass
class Reservation:
    shelf: str


class Decision(StrEnum):
    ACCEPT = "accept"
    REJECT = "reject"


@dataclass
class Receipt:
    payment: Payment
    stock: Reservation
    decision: Decision


@step(retry=RetryPolicy.STANDARD, timeout=30)
async def charge(order: Order) -> Payment:
    """Runs until it succeeds once; then its result is in the log and it never runs again."""
    print(f"charging {order.amount:.2f} with the key {idempotency_key()}")
    return Payment(f"payment-{order.id}", order.amount)


@step
async def reserve(order: Order) -> Reservation:
    print(f"reserving the goods of {order.id}")
    return Reservation("A3")


@flow
async def process(order: Order) -> Receipt:
    payment, stock = await asyncio.gather(charge(order), reserve(order))  # plain asyncio, replayed exactly
    try:
        async with asyncio.timeout(2):  # a durable timer; a day would do as well
            decision = await wait_signal("approval", Decision)
    except TimeoutError:
        decision = Decision.REJECT
    await asyncio.sleep(0.2)  # survives restarts, holds no memory
    return Receipt(payment, stock, decision)


async def main() -> None:
    order = Order("order-2" if "approve" in sys.argv else "order-1", 99.5)
    async with SqliteExecutionLog("order_example.db") as log, Worker(log, flows=[process]):
        handle = await Scheduler(log).schedule(process.bind(order), id=order.id)
        if "approve" in sys.argv:
            await handle.signal("approval", Decision.ACCEPT, key="by-ann")
        print(await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
