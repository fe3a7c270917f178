"""Fuzz: `python -m tests.torture --fuzz --rounds 100 --seed 1 --store redis`.

Each round starts random programs on two worker processes with room for few flows, kills and drains these, and sends
signals, cancels, pauses and other acts of operators from outside, all drawn from the seed. Then nobody disturbs any
more, every flow has to come to an end, and the oracle looks at all of it. When things hit is up to the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ergon import ExecutionLog, FlowNotFound, IllegalMove, Scheduler, open_log
from ergon.core.commit import FlowFilter, FlowRecord
from ergon.core.status import TaskStatus
from tests.crash.checker import Violation
from tests.crash.ledger import Ledger, read_ledger
from tests.crash.processes import Child, Zygote
from tests.torture.fuzz_oracle import Round, judge
from tests.torture.fuzz_programs import CHANNELS, Node, call_of, make_program
from tests.torture.stores import Store

MODULES: Final = ("tests.torture.fuzz_programs", "tests.crash.warm")
WORKERS: Final = 2
PROGRAMS: Final = 8
"""Flows that are started in a round."""
HEAL_SECONDS_MAX: Final = 60.0
ACTS: Final = {
    "signal": 45,
    "pause": 12,
    "resume": 12,
    "cancel": 8,
    "cancel_again": 3,
    "retry_now": 6,
    "retry": 4,
    "kill": 3,
    "start_again": 3,
    "schedule_again": 4,
}
_OPEN: Final = tuple(status for status in TaskStatus if not status.is_terminal)


@dataclass(frozen=True, kw_only=True)
class FuzzPlan:
    """How a run goes."""

    seed: int = 1
    rounds: int = 100
    seconds: float = 3_600.0
    """No round begins after this time."""
    torment_seconds: float = 2.0
    """How long a round is disturbed."""


class Fuzz:
    """One run."""

    def __init__(self, plan: FuzzPlan, folder: Path, zygote: Zygote, store: Store) -> None:
        self.plan, self.folder, self.zygote, self.store = plan, folder, zygote, store
        self.counts: Counter[str] = Counter()
        self.evidence = folder / "evidence.txt"
        self._workers: dict[int, Child] = {}
        self.ledger = Ledger(folder / "ledger")

    async def run(self) -> list[Violation]:
        """Play rounds until one finds something, or all are done. Its violations."""
        began = time.monotonic()
        async with open_log(self.store.url) as log:
            for number in range(self.plan.rounds):
                if time.monotonic() - began > self.plan.seconds:
                    break
                found = await _Round(self, log, number).play()
                self.counts["rounds"] += 1
                if found:
                    return found
        return []

    # -- processes -----------------------------------------------------------------------------------------

    def tend(self) -> None:
        """Start workers in the place of those that ended."""
        self.zygote.pump(0)
        for number in range(WORKERS):
            child = self._workers.get(number)
            if child is None or child.status is not None:
                self._workers[number] = self.zygote.fork(
                    "tests.torture.fuzz_programs:worker",
                    err=self.folder / f"stderr-{number}",
                    folder=self.folder,
                    url=self.store.url,
                    name=f"w{number}",
                )

    def kill(self, rng: random.Random) -> None:
        """Kill one, or both."""
        number = rng.randrange(WORKERS)
        for each in range(WORKERS) if rng.random() < 0.1 else (number,):
            self._workers[each].send(signal.SIGKILL)
        self.counts["kills"] += 1

    def drain(self, rng: random.Random) -> None:
        """Ask one to end."""
        self._workers[rng.randrange(WORKERS)].send(signal.SIGTERM)
        self.counts["drains"] += 1

    def stop(self) -> None:
        """End all of them."""
        for child in self._workers.values():
            child.send(signal.SIGTERM)
        for child in self._workers.values():
            if child.wait(20) is None:
                child.send(signal.SIGKILL)
                child.wait(5)
        self._workers.clear()

    def errors(self) -> str:
        """What the workers wrote."""
        return "\n".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("stderr-*")))


class _Round:
    """Some programs from their start to the verdict."""

    def __init__(self, fuzz: Fuzz, log: ExecutionLog, number: int) -> None:
        self._fuzz, self._log = fuzz, log
        self._seed = f"{fuzz.plan.seed}/{number}"
        self._rng = random.Random(self._seed)
        self._programs: dict[str, Node] = {
            f"{number}.{n}": make_program(f"{self._seed}/{n}") for n in range(PROGRAMS)
        }
        self._signals = 0
        self._records_from = len(read_ledger(fuzz.folder / "ledger"))
        self._cancelled: set[str] = set()
        self._killed: set[str] = set()

    async def play(self) -> list[Violation]:
        """Torment, heal, look."""
        self._fuzz.tend()
        for flow_id in self._programs:
            await self._schedule(flow_id)
        until = time.monotonic() + self._fuzz.plan.torment_seconds
        async with asyncio.TaskGroup() as group:
            group.create_task(self._disturb_workers(until))
            group.create_task(self._operate(until))
        await self._heal()
        self._fuzz.stop()
        seen = await self._look()
        found = await _in_a_callback(partial(judge, seen))
        if found:
            self._fuzz.evidence.write_text(_told(seen), encoding="utf-8")
        else:
            await self._clear()
        return found

    # -- disturbing ------------------------------------------------------------------------------------------

    async def _disturb_workers(self, until: float) -> None:
        rng = random.Random(f"{self._seed}/workers")
        while time.monotonic() < until:
            await asyncio.sleep(rng.uniform(0.05, 0.5))
            (self._fuzz.kill if rng.random() < 0.7 else self._fuzz.drain)(rng)
            await asyncio.sleep(rng.uniform(0.0, 0.1))
            self._fuzz.tend()

    async def _operate(self, until: float) -> None:
        rng = self._rng
        while time.monotonic() < until:
            await asyncio.sleep(rng.uniform(0.0, 0.06))
            what = rng.choices(list(ACTS), list(ACTS.values()))[0]
            flow = await self._some_flow(rng, failed=what == "retry", paused=what == "resume")
            if flow is not None:
                self._fuzz.counts[what] += 1
                self._fuzz.ledger.write("ACT", what=what, flow=flow.id)
                with contextlib.suppress(IllegalMove, FlowNotFound):
                    await getattr(self, f"_{what}")(flow.id)

    async def _some_flow(self, rng: random.Random, *, failed: bool, paused: bool) -> FlowRecord | None:
        statuses = (TaskStatus.FAILED,) if failed else (TaskStatus.PAUSED,) if paused else _OPEN
        flows, _ = await self._log.list(FlowFilter(statuses=statuses), limit=200)
        return rng.choice(flows) if flows else None

    async def _schedule(self, flow_id: str) -> None:
        await Scheduler(self._log).schedule(call_of(self._programs[flow_id]), id=flow_id)

    async def _signal(self, flow_id: str) -> None:
        self._signals += 1
        name = self._rng.choice(CHANNELS)
        value, key = f"{name}!{flow_id}!{self._signals}", f"k{self._signals}"
        for _ in range(self._rng.choice((1, 1, 2))):
            await Scheduler(self._log).handle(flow_id).signal(name, value, key=key)

    async def _pause(self, flow_id: str) -> None:
        await Scheduler(self._log).handle(flow_id).pause()

    async def _resume(self, flow_id: str) -> None:
        await Scheduler(self._log).handle(flow_id).resume()

    async def _cancel(self, flow_id: str) -> None:
        self._cancelled.add(flow_id)
        await Scheduler(self._log).handle(flow_id).cancel("fuzz")

    async def _cancel_again(self, flow_id: str) -> None:
        self._cancelled.add(flow_id)
        await Scheduler(self._log).handle(flow_id).cancel("fuzz")
        await Scheduler(self._log).handle(flow_id).cancel("fuzz again", again=True)

    async def _retry_now(self, flow_id: str) -> None:
        await Scheduler(self._log).handle(flow_id).retry_now()

    async def _retry(self, flow_id: str) -> None:
        await Scheduler(self._log).handle(flow_id).retry()

    async def _kill(self, flow_id: str) -> None:
        self._killed.add(flow_id)
        await Scheduler(self._log).handle(flow_id).kill("fuzz")

    async def _start_again(self, flow_id: str) -> None:
        """Kill one from outside, delete it as soon as its children let it, and start it again under its id."""
        if flow_id not in self._programs:
            return
        await self._kill(flow_id)
        for _ in range(20):
            with contextlib.suppress(IllegalMove):
                if await self._log.delete(flow_id):
                    break
            await asyncio.sleep(0.02)
        await self._schedule(flow_id)

    async def _schedule_again(self, flow_id: str) -> None:
        if flow_id in self._programs:
            await self._schedule(flow_id)

    # -- the end ---------------------------------------------------------------------------------------------

    async def _heal(self) -> None:
        """Nobody disturbs any more; what waits for signals gets them, and what is held back goes on."""
        until = time.monotonic() + HEAL_SECONDS_MAX
        while time.monotonic() < until:
            self._fuzz.tend()
            flows, _ = await self._log.list(FlowFilter(), limit=1_000)
            left = [flow for flow in flows if not flow.status.is_terminal]
            if not left:
                return
            for flow in left:
                with contextlib.suppress(IllegalMove, FlowNotFound):
                    if flow.status is TaskStatus.PAUSED:
                        await self._resume(flow.id)
                    await self._signal(flow.id)
            await asyncio.sleep(0.1)

    async def _look(self) -> Round:
        flows: dict[str, FlowRecord] = {}
        after = None
        while True:
            page, after = await self._log.list(FlowFilter(), limit=500, after=after)
            flows |= {flow.id: flow for flow in page}
            if after is None:
                break
        self._fuzz.counts["flows"] += len(flows)
        self._fuzz.counts.update(f"flows {flow.status.value}" for flow in flows.values())
        histories = {flow_id: await self._log.history(flow_id) for flow_id in flows}
        self._fuzz.counts["events"] += sum(map(len, histories.values()))
        return Round(
            self._programs,
            flows,
            histories,
            read_ledger(self._fuzz.folder / "ledger", self._records_from),
            await asyncio.to_thread(self._fuzz.store.snapshot),
            self._fuzz.errors(),
            self._cancelled,
            self._killed,
        )

    async def _clear(self) -> None:
        """Leave room for the next round: its flows begin where others were deleted."""
        for _ in range(5):
            flows, _ = await self._log.list(FlowFilter(), limit=1_000)
            for flow in flows:
                await self._log.delete(flow.id)


def _told(seen: Round) -> str:
    """All of a round, for whoever looks into it."""
    lines = []
    for flow in seen.flows.values():
        lines += [
            "",
            f"{flow.id}: {flow.name} {flow.status} parent={flow.parent_id} {flow.parent_op}",
            flow.input,
        ]
        lines += [f"  -> {flow.output}", f"  why: {flow.reason}"]
        lines += [f"  {' | '.join(str(part) for part in event)}" for event in seen.histories[flow.id]]
        lines += [f"  inbox: {row}" for row in seen.rows.inbox if row["flow_id"] == flow.id]
        lines += [f"  {record}" for record in seen.records if record.get("flow") == flow.id]
    return "\n".join(lines)


async def _in_a_callback(act: Callable[[], list[Violation]]) -> list[Violation]:
    """Flow code never runs inside a task of the host loop."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Violation]] = loop.create_future()

    def run() -> None:
        try:
            answer.set_result(act())
        except BaseException as error:
            answer.set_exception(error)

    loop.call_soon(run)
    return await answer
