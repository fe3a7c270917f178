"""Steps as a graph: each starts as soon as what it needs is there, with no barrier between levels.

`graph_of` shows the graph without running it.
"""

import asyncio
from dataclasses import dataclass

from ergon import Executor, InMemoryExecutionLog, dag, flow, flow_type, graph_of, step


@flow_type
@dataclass
class Report:
    customer: str

    @step
    async def load_orders(self) -> list[float]:
        return [10.0, 32.5]

    @step
    async def load_discount(self) -> float:
        await asyncio.sleep(0.05)  # slow; `total` does not wait for it
        return 0.1

    @step(inputs={"orders": "load_orders"})
    async def total(self, orders: list[float]) -> float:
        return sum(orders)

    @step(depends_on=["load_orders"])
    async def mark_read(self) -> None:
        print(f"orders of {self.customer} are read")

    @step(inputs={"total": "total", "discount": "load_discount"})
    async def invoice(self, total: float, discount: float) -> str:
        return f"{self.customer} pays {total * (1 - discount):.2f}"

    @flow
    async def run(self) -> str:
        text: str = await dag(self, final_step="invoice")
        return text


async def main() -> None:
    graph = graph_of(Report)
    print(graph.summary())
    print(graph.to_ascii())
    print(graph.levels()[0], "can start at once")
    print(graph.to_dot("report"))  # `dot -Tsvg` draws it

    async with InMemoryExecutionLog() as log:
        print(await Executor(Report("Ada"), log, "report-1").run())


if __name__ == "__main__":
    asyncio.run(main())
