"""What type checkers see through the decorators. Never run: `test_types.py` has mypy and pyright read it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any, assert_type

import attrs
import msgspec
import pydantic

from ergon import (
    ChildHandle,
    Completed,
    ExecutionLog,
    Executor,
    Flow,
    FlowCall,
    FlowHandle,
    FlowType,
    RetryPolicy,
    Scheduler,
    Step,
    Suspended,
    Worker,
    await_external_signal,
    flow,
    flow_type,
    invoke,
    run_step,
    step,
    wait_signal,
)


@dataclass
class Order:
    id: str


@dataclass
class Receipt:
    total: float


@step
async def charge(order: Order, *, currency: str = "EUR") -> Receipt:
    return Receipt(len(order.id) + len(currency))


@step(retry=RetryPolicy.STANDARD, timeout=30)
def count(text: str) -> int:
    return len(text)


@step(process=True)
def heavy(number: int) -> list[int]:
    return [number]


@flow
async def process(order: Order, copies: int = 1) -> Receipt:
    receipt = await charge(order, currency="USD")
    assert_type(receipt, Receipt)
    assert_type(await count("text"), int)
    assert_type(await heavy(1), list[int])

    one, other = await asyncio.gather(charge(order), count("text"))
    assert_type(one, Receipt)
    assert_type(other, int)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(charge(order))
    assert_type(task.result(), Receipt)
    assert_type(await asyncio.wait_for(count("text"), 10), int)

    assert_type(await run_step(count.function, "text"), Any)
    assert_type(await run_step(len, "text"), int)
    assert_type(await run_step(fetch, "url"), bytes)
    assert_type(await run_step(fetch, "url", name="fetch-page"), bytes)
    assert_type(await run_step(partial(fetch, url="url"), name="fetch-page"), bytes)
    assert_type(await run_step(padded, "url", name="padded"), str)
    assert_type(await run_step(padded, "url", 3, name="padded"), str)
    assert_type(await run_step(padded, text="url", width=3), str)
    assert_type(await run_step(lambda: 3, name="three"), int)

    assert_type(await wait_signal("approval", Receipt), Receipt)
    assert_type(await wait_signal("approval"), Any)
    assert_type(await await_external_signal("approval", bool), bool)

    assert_type(await nightly(3), list[str])
    child = invoke(nightly.bind(3), id="child")
    assert_type(child, ChildHandle[list[str]])
    assert_type(await child.result(), list[str])
    return receipt


async def fetch(url: str) -> bytes:
    return url.encode()


def padded(text: str, width: int = 10) -> str:
    return text.ljust(width)


@flow(queue="nightly", retry=RetryPolicy.NONE)
async def nightly(count: int) -> list[str]:
    return ["x"] * count


@flow_type
@dataclass
class Checkout(FlowType):
    order: Order

    @step
    async def pay(self, amount: float) -> Receipt:
        return Receipt(amount)

    @step(depends_on="pay")
    def print_label(self, copies: int) -> list[str]:
        return [self.order.id] * copies

    @flow
    async def run(self, amount: float) -> Receipt:
        assert_type(await self.pay(amount), Receipt)
        assert_type(await self.print_label(copies=2), list[str])
        assert_type(await invoke(Checkout(self.order)).result(), Any)
        assert_type(await invoke(Checkout(self.order).run.bind(1.0)).result(), Receipt)
        assert_type(await Checkout(self.order).run(2.0), Receipt)
        assert_type(self.invoke(nightly.bind(3), id="child", queue="slow"), ChildHandle[list[str]])
        assert_type(await self.invoke(Checkout(self.order).run.bind(1.0), detached=True).result(), Receipt)
        assert_type(await self.invoke(Checkout(self.order)).result(), Any)
        return await self.pay(amount)


@flow_type
class Parcel(msgspec.Struct):
    id: str

    @flow
    async def run(self) -> str:
        return self.id


@flow_type
@attrs.define
class Letter:
    id: str

    @flow
    async def run(self) -> str:
        return self.id


@flow_type
class Invoice(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ignored_types=(Flow, Step))
    id: str

    @flow
    async def run(self) -> str:
        return self.id


async def every_kind_of_flow_object(log: ExecutionLog) -> None:
    for made in (Parcel("1"), Letter("1"), Invoice(id="1")):
        assert_type(await Scheduler(log).schedule(made), FlowHandle[Any])
        await Executor(made, log, "x").run()
    assert_type(await Scheduler(log).schedule(Letter("1").run), FlowHandle[str])
    Worker(log, flows=[Parcel, Letter, Invoice, process, nightly, Checkout])
    every = (process, nightly, Checkout)  # a tuple: of a list, mypy forgets what is in it
    Worker(log, flows=every)
    await Worker(log).register(process, Checkout)


async def start(log: ExecutionLog) -> None:
    order = Order("o-1")
    assert_type(process.bind(order, copies=2), FlowCall[Receipt])
    handle = await Scheduler(log).schedule(process.bind(order), id="order-1")
    assert_type(handle, FlowHandle[Receipt])
    assert_type(await handle.result(timeout=10), Receipt)
    assert_type(await Scheduler(log).schedule(Checkout(order).run.bind(1.0)), FlowHandle[Receipt])
    starter = Scheduler(log)
    many = await starter.schedule_all([process.bind(order), Checkout(order).run.bind(1.0)], ids=["1", "2"])
    assert_type(many, list[FlowHandle[Receipt]])
    assert_type(await starter.results(many), list[Receipt])
    assert_type(await starter.results(many, return_exceptions=True), list[Receipt | Exception])
    assert_type(await starter.schedule_all([Checkout(order)]), list[FlowHandle[Any]])
    assert_type(await Scheduler(log).schedule(Checkout(order)), FlowHandle[Any])

    assert_type(Scheduler(log), Scheduler[None])
    assert_type(Scheduler(log).version, None)
    assert_type(Scheduler(log, version="1.4"), Scheduler[str])
    versioned = Scheduler(log).with_version("1.4")
    assert_type(versioned, Scheduler[str])
    assert_type(versioned.version, str)
    assert_type(Scheduler(log).from_env(), Scheduler[str])
    assert_type(versioned.unversioned(), Scheduler[None])
    assert_type(await versioned.schedule(process.bind(order)), FlowHandle[Receipt])
    either: list[Scheduler] = [versioned, versioned.unversioned(), Scheduler(log)]
    for scheduler in either:
        assert_type(scheduler.version, str | None)

    executor = Executor(Checkout(order), log, "checkout-1")
    outcome = await executor.run(lambda checkout: checkout.run(1.0))
    assert_type(outcome, Completed[Receipt] | Suspended)
    if isinstance(outcome, Completed):
        assert_type(outcome.result, Receipt)
    assert_type(outcome.result, Receipt)
    assert_type(await Executor(process.bind(order), log, "order-2").run(), Completed[Receipt] | Suspended)
