"""The two programs that newcomers run first: an object run here and now, and objects run by two workers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from ergon import (
    Completed,
    Executor,
    Scheduler,
    SqliteExecutionLog,
    TaskStatus,
    Worker,
    flow,
    flow_type,
    schedule_timer_named,
    step,
)
from tests.stories.helpers import soon, until

printed: list[str] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    printed.clear()


@dataclass
@flow_type
class OrderProcessor:
    order_id: str
    amount: float

    @step
    async def validate(self):
        printed.append(f"[{self.order_id}] Validating...")
        return self.amount > 0

    @step
    async def process_payment(self):
        printed.append(f"[{self.order_id}] Processing ${self.amount}...")
        return f"payment-{self.order_id}"

    @flow
    async def run(self):
        await self.validate()
        return await self.process_payment()


async def test_an_object_is_run_by_an_executor_in_memory() -> None:
    storage = await SqliteExecutionLog.in_memory()

    order = OrderProcessor("ORD-001", 100.0)
    executor = Executor(order, storage, "order-001")
    outcome = await executor.run(lambda o: o.run())

    assert outcome == Completed("payment-ORD-001")
    assert printed == ["[ORD-001] Validating...", "[ORD-001] Processing $100.0..."]
    await storage.close()


@dataclass
@flow_type
class TimedOrderProcessor:
    order_id: str

    @step
    async def wait_for_fraud_check(self):
        printed.append(f"[{self.order_id}] Waiting for fraud check...")
        await schedule_timer_named(0.3, f"fraud-{self.order_id}")
        printed.append(f"[{self.order_id}] Fraud check complete")

    @flow
    async def process(self):
        await self.wait_for_fraud_check()
        return "completed"


async def test_two_workers_with_timers_share_one_log(tmp_path: Path) -> None:
    storage = SqliteExecutionLog(tmp_path / "distributed.db")
    await storage.connect()
    scheduler = Scheduler(storage)
    worker1 = Worker(storage, "worker-1", enable_timers=True)
    await worker1.register(TimedOrderProcessor)
    handle1 = await worker1.start()
    worker2 = Worker(storage, "worker-2", enable_timers=True)
    await worker2.register(TimedOrderProcessor)
    handle2 = await worker2.start()

    for i in range(3):
        await scheduler.schedule(TimedOrderProcessor(f"ORD-{i:03d}"))

    async def all_completed() -> bool:
        return await scheduler.count() == {TaskStatus.COMPLETED: 3}

    await until(all_completed)
    await soon(handle1.shutdown())
    await soon(handle2.shutdown())
    await storage.close()
    assert sorted(printed) == sorted(
        line
        for i in range(3)
        for line in (f"[ORD-{i:03d}] Waiting for fraud check...", f"[ORD-{i:03d}] Fraud check complete")
    )


@flow
async def greet(name: str) -> str:
    return f"Hello {name}"


def test_a_whole_program_is_a_few_lines(tmp_path: Path) -> None:
    async def main() -> str:
        async with SqliteExecutionLog(tmp_path / "hello.db") as log, Worker(log, flows=[greet]):
            handle = await Scheduler(log).schedule(greet.bind("world"), id="hello-1")
            return await handle.result()

    assert asyncio.run(main()) == "Hello world"
    assert asyncio.run(main()) == "Hello world", "the second run finds the recorded result"
