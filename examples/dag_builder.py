"""A graph of plain functions: `DagBuilder` starts each call as soon as the calls it needs have ended.

`dag.py` shows the same for the methods of a class. Here the graph may depend on the flow's input.
"""

import asyncio

from ergon import DagBuilder, Executor, InMemoryExecutionLog, flow, step


@step
async def fetch(city: str) -> float:
    return len(city) * 1.5


@step
async def mean(first: float, second: float) -> float:
    return (first + second) / 2


@step
async def publish(value: float) -> str:
    return f"the mean is {value}"


@step
async def notify() -> None:
    print("both cities were asked")


@flow
async def weather(one: str, other: str) -> str:
    build = DagBuilder()
    first = build.add(fetch, one, node_name=one)
    second = build.add(fetch, other, node_name=other)
    both = build.add(mean, first, second)  # a node as an argument stands for its result
    build.add(notify, after=(first, second))  # order alone, no value
    published = build.add(publish, both)
    text: str = await build.run(final=published)
    return text


async def main() -> None:
    async with InMemoryExecutionLog() as log:
        print(await Executor(weather.bind("Oslo", "Lisbon"), log, "weather-1").run())


if __name__ == "__main__":
    asyncio.run(main())
