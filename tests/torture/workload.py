"""What workers and clients do while the nemesis kills them. Runs in forked processes only.

Every step leaves BEGIN and END in the ledger and returns a token; those that move money also leave APPLY, which the
outside world counts once for each idempotency key. Clients work through a plan that follows from the seed and their
number, so that one that was killed goes on where it stopped, repeating its calls with the same ids and keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from ergon import (
    ExecutionLog,
    FlowCall,
    FlowHandle,
    LogBusy,
    RetryPolicy,
    Scheduler,
    StepInterrupted,
    StoreError,
    Worker,
    WorkerOptions,
    flow,
    idempotency_key,
    invoke,
    now,
    open_log,
    patched,
    schedule_timer,
    step,
    wait_signal,
)
from tests.crash.ledger import Ledger, read_ledger
from tests.crash.program import Stage, effecting, note, use_ledger

TRIES: Final = RetryPolicy(attempts_max=20, backoff="fixed", first_delay_seconds=0.01)
ITEMS_AT_ONCE: Final = 12
START_EVERY_SECONDS: Final = 0.04
RESULT_SECONDS_MAX: Final = 90.0
OPEN_SECONDS_MAX: Final = 20.0


class Transient(Exception):
    """Goes away by itself."""


@step
async def work(label: str, saw: list[str], seconds: float) -> str:
    with effecting(label, *saw) as token:
        await asyncio.sleep(seconds)
        return token


@step(retry=TRIES)
async def move_money(label: str, saw: list[str], account: int, amount: int) -> str:
    with effecting(label, *saw) as token:
        await asyncio.sleep(random.uniform(0, 0.02))
        if random.random() < 0.1:
            raise Transient(label)
        note("APPLY", key=idempotency_key(), account=account, amount=amount)
        return token


@flow
async def transfer(source: int, target: int, amount: int) -> list[str]:
    tokens = [await move_money("debit", [], source, -amount)]
    tokens.append(await move_money("credit", tokens, target, amount))
    tokens.append(await work("receipt", tokens, 0.005))
    return tokens


@flow
async def saga(source: int, target: int, amount: int) -> list[str]:
    done: list[tuple[int, int]] = []
    tokens: list[str] = []
    try:
        for account, change in ((source, -amount), (target, amount)):
            tokens.append(await move_money("do", tokens[-1:], account, change))
            done.append((account, change))
        raise Transient("the third step fails")
    except Transient:
        for account, change in reversed(done):
            tokens.append(await move_money("undo", tokens[-1:], account, -change))
    return tokens


@flow
async def approval(count: int) -> list[str]:
    first = await work("ask", [], 0.002)
    nonces = [await wait_signal("vote", str) for _ in range(count)]
    await work("count", [first, *nonces], 0.002)
    return nonces


@step
async def wake(due: float) -> str:
    with effecting("wake") as token:
        note("WAKE", due=due, wall=now().timestamp())
        return token


@flow
async def sleeper(pauses: list[float]) -> list[str]:
    tokens = []
    for seconds in pauses:
        due = now().timestamp() + seconds
        await asyncio.sleep(seconds)
        tokens.append(await wake(due))
    return tokens


@flow
async def leaf(number: int) -> int:
    await work("leaf", [], 0.005)
    return number


@flow
async def fan_out(count: int) -> int:
    return sum(await asyncio.gather(*(invoke(leaf.bind(n)).result() for n in range(count))))


@flow
async def long(count: int) -> list[str]:
    tokens: list[str] = []
    for _ in range(count):
        tokens.append(await work("long", tokens[-1:], 0.001))
    return tokens


@flow
async def cancellable() -> list[str]:
    first = await work("before", [], 0.001)
    try:
        await work("slow", [first], 30.0)
    finally:
        await work("clean", [first], 0.001)
    return [first]


@flow(retry=RetryPolicy(attempts_max=3, backoff="fixed", first_delay_seconds=0.02))
async def unsteady(fails: int) -> list[str]:
    first = await work("kept", [], 0.002)
    await asyncio.sleep(0.01)
    try:
        second = await fails_until(fails, [first])
    except Transient:  # the last attempt has another step, and another sleep, where this one has these
        await work("detour", [first], 0.002)
        await asyncio.sleep(0.02)
        raise
    third = await work("straight", [first, second], 0.002)
    due = now().timestamp() + 0.02
    await asyncio.sleep(0.02)
    return [first, second, third, await wake(due)]


@step
async def fails_until(fails: int, saw: list[str]) -> str:
    from ergon.flows.context import step_context

    with effecting("unsteady", *saw) as token:
        body: Any = step_context.get()
        if body.op.machine.attempt <= fails:
            raise Transient("not in this attempt of the flow")
        return token


@step(at_most_once=True)
async def once(label: str) -> str:
    with effecting(label, amo=True) as token:
        await asyncio.sleep(0.03)
        return token


@flow
async def careful() -> str:
    try:
        await once("once")
    except StepInterrupted:
        return "interrupted"
    return "done"


@step
async def ask_inside(label: str) -> str:
    with effecting(label):
        await schedule_timer(0.02)
        return await wait_signal("inside", str)


@flow
async def asking() -> str:
    return await ask_inside("asking")


@flow
async def forked() -> list[str]:
    tokens = [await work("old", [], 0.002)]
    if patched("newer"):
        tokens.append(await work("new", tokens, 0.002))
    return tokens


@step
async def echo(text: str) -> str:
    with effecting("echo"):
        return text


@flow
async def bulky(size: int) -> int:
    return len(await echo("x" * size))


FLOWS: Final = (
    transfer, saga, approval, sleeper, leaf, fan_out, long, cancellable, unsteady, careful, asking, forked, bulky
)  # fmt: skip


# -- the client's plan -------------------------------------------------------------------------------------

Act = Callable[[Stage, FlowHandle[Any]], Awaitable[None]]


async def _nothing(stage: Stage, handle: FlowHandle[Any]) -> None:
    pass


def _votes(count: int) -> Act:
    async def vote(stage: Stage, handle: FlowHandle[Any]) -> None:
        for number in range(count):
            await stage.signal(handle, "vote", f"{handle.id}:{number}", key=f"k{number}")
            await stage.signal(handle, "vote", f"{handle.id}:{number}", key=f"k{number}")

    return vote


async def _answer(stage: Stage, handle: FlowHandle[Any]) -> None:
    await stage.signal(handle, "inside", f"{handle.id}:inside", key="k")


def _cancel_after(seconds: float) -> Act:
    async def cancel(stage: Stage, handle: FlowHandle[Any]) -> None:
        await asyncio.sleep(seconds)
        await stage.cancel(handle, "changed my mind")

    return cancel


def item(seed: int, client: int, number: int) -> tuple[str, FlowCall[Any], Act]:
    """The n-th thing a client does: a flow's id, the flow, and what follows. Every eighth is shared by all clients."""
    owner = "all" if number % 8 == 0 else str(client)
    rng = random.Random(f"{seed}/{owner}/{number}")
    kind = rng.choices(*zip(*_KINDS.items(), strict=True))[0]
    source, target = rng.sample(range(100), 2)
    amount = rng.randint(1, 50)
    call: FlowCall[Any]
    then: Act = _nothing
    if kind == "transfer":
        call = transfer.bind(source, target, amount)
    elif kind == "saga":
        call = saga.bind(source, target, amount)
    elif kind == "approval":
        count = rng.randint(1, 5)
        call, then = approval.bind(count), _votes(count)
    elif kind == "sleeper":
        call = sleeper.bind([round(rng.uniform(0.05, 1.0), 3) for _ in range(rng.randint(1, 3))])
    elif kind == "fan_out":
        call = fan_out.bind(rng.randint(3, 8))
    elif kind == "long":
        call = long.bind(40)
    elif kind == "cancellable":
        call, then = cancellable.bind(), _cancel_after(rng.uniform(0, 0.3))
    elif kind == "asking":
        call, then = asking.bind(), _answer
    else:
        call = _PLAIN[kind](rng)
    return f"{kind}-{owner}-{number}", call, then


_KINDS: Final = {
    "transfer": 20, "saga": 10, "approval": 10, "sleeper": 10, "fan_out": 6, "long": 4, "cancellable": 6,
    "unsteady": 6, "careful": 8, "asking": 6, "forked": 4, "bulky": 3,
}  # fmt: skip
_PLAIN: Final[dict[str, Callable[[random.Random], FlowCall[Any]]]] = {
    "unsteady": lambda rng: unsteady.bind(rng.randint(1, 2)),
    "careful": lambda rng: careful.bind(),
    "forked": lambda rng: forked.bind(),
    "bulky": lambda rng: bulky.bind(rng.choice([10_000, 300_000, 1_000_000])),
}


# -- processes ---------------------------------------------------------------------------------------------


def worker(*, folder: str, url: str, name: str, lease_seconds: float, bug: str = "") -> None:
    """Entry of a worker process: runs until SIGTERM."""
    _log_and_ledger(folder)
    if bug:
        from tests.crash.planted import plant

        plant(bug)
    asyncio.run(_work(url, name, lease_seconds))


async def _work(url: str, name: str, lease_seconds: float) -> None:
    options = WorkerOptions(
        lease_seconds=lease_seconds,
        reap_seconds=0.2,
        poll_seconds=0.5,
        evict_after_seconds=0.3,
        capacity=60,
        claims_stalled_max=200,
        drain_seconds=5.0,
    )
    await work_until_told(url, name, FLOWS, options)


async def work_until_told(url: str, name: str, flows: Sequence[Any], options: WorkerOptions) -> None:
    """Be a worker until SIGTERM."""
    terminated = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminated.set)
    async with opened(url) as log, Worker(log, name, flows=flows, options=options):
        await terminated.wait()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[ExecutionLog]:
    """The log; tried again while its server is away, as whoever starts such processes would."""
    log, until = open_log(url), time.monotonic() + OPEN_SECONDS_MAX
    while True:
        try:
            await log.connect()
            break
        except LogBusy:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)
    try:
        yield log
    finally:
        await log.close()


def client(*, folder: str, url: str, number: int, seed: int) -> None:
    """Entry of a client process: runs until the nemesis says stop, then waits for what it started."""
    ledger = _log_and_ledger(folder)
    asyncio.run(_ask(Path(folder), url, ledger, number, seed))


async def _ask(folder: Path, url: str, ledger: Ledger, number: int, seed: int) -> None:
    progress = Ledger(folder / f"client-{number}")
    done = {record["n"] for record in read_ledger(progress.path) if record.kind == "ITEM"}
    begun = max((record["n"] for record in read_ledger(progress.path)), default=-1)
    async with opened(url) as log:
        stage = Stage(log, ledger)
        places = asyncio.Semaphore(ITEMS_AT_ONCE)

        async def one(n: int) -> None:
            async with places:
                await _do(stage, seed, number, n)
                progress.write("ITEM", n=n)

        async with asyncio.TaskGroup() as group:
            for n in range(begun + 1):
                if n not in done:
                    group.create_task(one(n))
            n = begun
            while not (folder / "stop").exists():
                if places.locked():
                    await asyncio.sleep(0.01)
                    continue
                n += 1
                progress.write("START", n=n)
                group.create_task(one(n))
                await asyncio.sleep(START_EVERY_SECONDS)
    ledger.write("DONE", client=number)


async def _do(stage: Stage, seed: int, number: int, n: int) -> None:
    """One item, each call repeated until it is answered."""
    id, call, then = item(seed, number, n)
    while True:
        try:
            await Scheduler(stage.log).schedule(call, id=id)
            stage.ledger.write("ACK", what="schedule", flow=id)
            handle = Scheduler(stage.log).handle(id)
            await then(stage, handle)
            async with asyncio.timeout(RESULT_SECONDS_MAX):
                await stage.result(handle)
            return
        except StoreError as error:
            stage.ledger.write("NOTE", what="again", flow=id, error=str(error)[:200])
            await asyncio.sleep(0.1)


class _Noted(logging.Handler):
    """A worker that lost its lease says so in the ledger too: for the checker it is a fault like the others."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):
            if "lost its lease" in record.getMessage():
                note("LOST", target=os.getpid())


def _log_and_ledger(folder: str) -> Ledger:
    logging.basicConfig(format=f"%(relativeCreated)6d {os.getpid()} %(name)s %(levelname)s %(message)s")
    logging.getLogger("ergon.worker").addHandler(_Noted())
    return use_ledger(Ledger(Path(folder) / "ledger"))
