"""Classes of attrs, pydantic and msgspec serve as well as dataclasses: as flows, as arguments, and as results."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest

from ergon import (
    Completed,
    EncodingError,
    ExecutionLog,
    Executor,
    Flow,
    FlowType,
    Scheduler,
    Step,
    flow,
    flow_type,
    step,
    wait_signal,
)
from tests.stories.helpers import start, until_status, worker

WHEN = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)


@attrs.define
class Line:
    name: str
    price: Decimal
    tags: frozenset[str] = frozenset()


class Customer(pydantic.BaseModel):
    id: UUID
    name: str = pydantic.Field(min_length=1)
    since: datetime


class Parcel(msgspec.Struct):
    lines: list[Line]
    to: Customer


LINES = [Line("tea", Decimal("2.50"), frozenset({"hot", "leaf"})), Line("cup", Decimal(4))]
ANN = Customer(id=UUID(int=7), name="ann", since=WHEN)
seen: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    seen.clear()


@step
async def raise_prices(lines: list[Line], by: Decimal) -> list[Line]:
    return [attrs.evolve(line, price=line.price + by) for line in lines]


@step
async def rename(customer: Customer, name: str) -> Customer:
    return customer.model_copy(update={"name": name})


@step
async def pack(lines: list[Line], to: Customer) -> Parcel:
    return Parcel(lines, to)


@flow
async def order(lines: list[Line], customer: Customer) -> Parcel:
    dearer = await raise_prices(lines, Decimal("0.50"))
    seen.append(dearer)
    renamed = await rename(customer, await wait_signal("name", str))
    seen.append(renamed)
    return await pack(dearer, renamed)


async def test_they_are_arguments_and_results_of_flows_and_steps_live_and_on_replay(
    log: ExecutionLog,
) -> None:
    async with worker(log, order):
        handle = await start(log, order.bind(LINES, ANN))
        await until_status(handle, "suspended")
        await handle.signal("name", "bob")
        parcel = await handle.result(10)

    assert seen[0] == seen[1] == [attrs.evolve(line, price=line.price + Decimal("0.50")) for line in LINES]
    assert parcel == Parcel(seen[0], Customer(id=UUID(int=7), name="bob", since=WHEN))
    assert isinstance(parcel.lines[0], Line)
    assert isinstance(parcel.to, Customer)


@flow_type
@attrs.define
class AttrsOrder(FlowType):
    lines: list[Line]
    customer: Customer

    @step
    async def note(self, text: str) -> str:
        return f"{text} for {self.customer.name}, {len(self.lines)} lines"

    @flow
    async def run(self) -> str:
        return await self.note(await wait_signal("name", str))


@flow_type
class ModelOrder(FlowType, pydantic.BaseModel):
    model_config = pydantic.ConfigDict(ignored_types=(Flow, Step))
    lines: list[str]
    customer: Customer

    @step
    async def note(self, text: str) -> str:
        return f"{text} for {self.customer.name}, {len(self.lines)} lines"

    @flow
    async def run(self) -> str:
        return await self.note(await wait_signal("name", str))


@flow_type
class StructOrder(msgspec.Struct):
    lines: list[Line]
    customer: Customer

    @step
    async def note(self, text: str) -> str:
        return f"{text} for {self.customer.name}, {len(self.lines)} lines"

    @flow
    async def run(self) -> str:
        return await self.note(await wait_signal("name", str))


@flow_type
@dataclass(frozen=True, slots=True)
class SlotsOrder(FlowType):
    lines: list[Line]
    customer: Customer

    @step
    async def note(self, text: str) -> str:
        return f"{text} for {self.customer.name}, {len(self.lines)} lines"

    @flow
    async def run(self) -> str:
        return await self.note(await wait_signal("name", str))


KINDS = [AttrsOrder, ModelOrder, StructOrder, SlotsOrder]


@pytest.mark.parametrize("kind", KINDS)
async def test_they_are_flow_types(log: ExecutionLog, kind: Any) -> None:
    lines = ["tea", "cup"] if kind is ModelOrder else LINES
    made = kind(lines=lines, customer=ANN)

    async with worker(log, kind):
        handle = await Scheduler(log).schedule(made, id="f")
        await until_status(handle, "suspended")
        await handle.signal("name", "gift")

        assert await handle.result(10) == "gift for ann, 2 lines"
    assert (await handle.record()).name == f"{kind.__name__}.run"
    again = await Executor(made, log, "f").run(lambda order: order.run())
    assert again == Completed("gift for ann, 2 lines")


async def test_a_model_that_no_longer_fits_is_refused_where_it_is_returned(log: ExecutionLog) -> None:
    """A copy is not checked by pydantic; what a replay could not read back must not be recorded."""

    @step
    async def strip(customer: Customer) -> Customer:
        return customer.model_copy(update={"name": ""})

    @flow
    async def spoil(customer: Customer) -> Customer:
        return await strip(customer)

    async with worker(log, spoil):
        handle = await start(log, spoil.bind(ANN))
        with pytest.raises(EncodingError, match=r"refused by its model at `\.name`"):
            await handle.result(10)
