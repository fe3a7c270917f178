"""Retries: a policy says how often and how long to wait; an error may know better; some errors end it at once."""

import asyncio

from ergon import (
    RetryableError,
    RetryPolicy,
    Scheduler,
    SqliteExecutionLog,
    Worker,
    attempt,
    flow,
    idempotency_key,
    step,
)

QUICK = RetryPolicy(attempts_max=5, first_delay_seconds=0.05, backoff="exponential", jitter=0.2)


class CardDeclined(RetryableError):
    """Knows about itself that another attempt does not help."""

    def __init__(self, code: str) -> None:
        super().__init__(f"declined: {code}")
        self.code = code

    def is_retryable(self) -> bool:
        return self.code == "try-later"


@step(retry=QUICK)
async def fetch_price(item: str) -> float:
    """Fails twice. Every attempt has the same idempotency key."""
    print(f"price of the {item}: attempt {attempt()} with key {idempotency_key()}")
    if attempt() < 3:
        raise ConnectionError("no answer")
    return 12.5


@step(retry=QUICK)
async def pay(amount: float, code: str) -> str:
    if attempt() == 1:
        raise CardDeclined(code)
    return f"paid {amount} at attempt {attempt()}"


@flow
async def buy(item: str) -> list[str]:
    price = await fetch_price(item)
    outcomes = [await pay(price, "try-later")]
    try:
        await pay(price, "stolen")
    except CardDeclined as error:  # of its own class, with its attributes, live and on replay
        outcomes.append(f"gave up on {error.code}")
    return outcomes


async def main() -> None:
    async with SqliteExecutionLog("shop.db") as log, Worker(log, flows=[buy]):
        handle = await Scheduler(log).schedule(buy.bind("lamp"), id="buy-1")
        print(await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
