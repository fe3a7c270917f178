"""What type checkers refuse. Each `type: ignore` is a mistake they must find: an unused one is an error here."""
# pyright: reportUnnecessaryTypeIgnoreComment=error

from __future__ import annotations

from dataclasses import dataclass

from ergon import (
    ExecutionLog,
    Executor,
    FlowType,
    Scheduler,
    Worker,
    flow,
    flow_type,
    invoke,
    run_step,
    step,
    wait_signal,
)


@step
async def charge(amount: float, *, currency: str = "EUR") -> str:
    return f"{amount} {currency}"


@step(timeout=5)
def count(text: str) -> int:
    return len(text)


def price_of(amount: float) -> str:
    return f"{amount}"


@flow
async def process(amount: float) -> str:
    await charge("much")  # type: ignore[arg-type]
    await charge(1.0, "EUR")  # type: ignore[call-arg]
    await charge()  # type: ignore[call-arg]
    await charge(1.0, curency="EUR")  # type: ignore[call-arg]
    await count(text=1)  # type: ignore[arg-type]
    await run_step(len, 1)  # type: ignore[call-overload]
    await run_step(price_of, "wrong", name="x")  # type: ignore[arg-type]
    await run_step(price_of, name="x")  # type: ignore[arg-type, call-arg]
    await run_step(price_of, 1.0, nam="x")  # type: ignore[arg-type, call-arg]
    invoke(process)  # type: ignore[call-overload]
    invoke("process")  # type: ignore[call-overload]
    number: int = await charge(1.0)  # type: ignore[assignment]
    answer: int = await wait_signal("approval", str)  # type: ignore[arg-type]
    await process("much")  # type: ignore[arg-type]
    child: int = await invoke(process.bind(1.0)).result()  # type: ignore[assignment]
    return f"{number} {answer} {child}"


@flow_type
@dataclass
class Order(FlowType):
    id: str

    @step
    async def ship(self, copies: int) -> str:
        return self.id * copies

    @flow
    async def run(self, amount: float) -> str:
        await self.ship("two")  # type: ignore[arg-type]
        await self.ship()  # type: ignore[call-arg]
        number: int = await self.ship(1)  # type: ignore[assignment]
        child: int = await self.invoke(process.bind(1.0)).result()  # type: ignore[assignment]
        self.invoke(process.bind(1.0), name="child")  # type: ignore[call-overload]
        return f"{number} {amount} {child}"


def deploy(scheduler: Scheduler[str]) -> None:
    print(scheduler.version.upper())


async def start(log: ExecutionLog) -> None:
    process.bind("much")  # type: ignore[arg-type]
    process.bind()  # type: ignore[call-arg]
    Order("o").run.bind("much")  # type: ignore[arg-type]
    await Scheduler(log).schedule(process)  # type: ignore[call-overload]
    await Scheduler(log).schedule_all(process.bind(1.0))  # type: ignore[call-overload]
    await Scheduler(log).schedule("process")  # type: ignore[call-overload]
    await Scheduler(log).schedule(Order)  # type: ignore[call-overload]
    Worker(log, flows=["process"])  # type: ignore[list-item]
    Worker(log, flows=[price_of])  # type: ignore[list-item]
    await Worker(log).register("process")  # type: ignore[arg-type]
    Executor(1, log, "x")  # type: ignore[type-var]
    Executor("process", log, "x")  # type: ignore[type-var]
    Executor(process, log, "x")  # type: ignore[type-var]
    handle = await Scheduler(log).schedule(process.bind(1.0))
    await handle.signal("approval", 1, keyy="a")  # type: ignore[call-arg]
    number: int = await handle.result()  # type: ignore[assignment]
    deploy(Scheduler(log))  # type: ignore[arg-type]
    deploy(Scheduler(log).with_version("1.4").unversioned())  # type: ignore[arg-type]
    plain: Scheduler[None] = Scheduler(log).from_env()  # type: ignore[assignment]
    version: str = plain.version  # type: ignore[assignment]
    deploy(Scheduler(log, version=version))
    await Executor(Order("o"), log, "o").run(lambda order: order.missing())  # type: ignore[attr-defined]
    step(timeout="long")  # type: ignore[call-overload]
    flow(queue=number)  # type: ignore[call-overload]
