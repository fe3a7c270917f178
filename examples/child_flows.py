"""Child flows: each has its own id, history and result; any worker may run it. They are cancelled with their parent."""

import asyncio

from ergon import FlowFilter, Scheduler, SqliteExecutionLog, Worker, flow, invoke, step


@step
async def fetch(city: str, day: int) -> float:
    return len(city) + day / 2


@flow
async def forecast(city: str) -> float:
    days = await asyncio.gather(*(fetch(city, day) for day in range(5)))
    return sum(days) / len(days)


@flow
async def newsletter(cities: list[str]) -> dict[str, float]:
    handles = [invoke(forecast.bind(city), id=f"forecast-{city}") for city in cities]
    means = await asyncio.gather(*(handle.result() for handle in handles))
    one_more = await forecast("Lisbon")  # calling a flow inside a flow is the short form
    return {**dict(zip(cities, means, strict=True)), "Lisbon": one_more}


async def main() -> None:
    async with SqliteExecutionLog("weather.db") as log, Worker(log, flows=[newsletter, forecast]):
        scheduler = Scheduler(log)
        handle = await scheduler.schedule(newsletter.bind(["Oslo", "Quito"]), id="newsletter-1")
        print(await handle.result())
        children, _ = await scheduler.list(FlowFilter(parent_id="newsletter-1"))
        for child in reversed(children):
            print(child.id, child.name, child.status)


if __name__ == "__main__":
    asyncio.run(main())
