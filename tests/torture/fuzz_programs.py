"""Random whole flows: trees of what users write, made from a seed, and the values that each may come to.

A program is plain JSON, the input of the flow that plays it. Which branch of a race wins, and which wait gets which
signal, is up to the run; everything else of a flow's value follows from its program.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from ergon import (
    RetryPolicy,
    StepInterrupted,
    WorkerOptions,
    flow,
    invoke,
    schedule_timer,
    step,
    wait_signal,
)
from ergon.flows.context import step_context
from tests.crash.ledger import Ledger
from tests.crash.program import effecting, use_ledger
from tests.torture.workload import work_until_told

Node = dict[str, Any]

ATTEMPTS_MAX: Final = 3
CHANNELS: Final = ("left", "right")
DELAYS: Final = (0.0, 0.005, 0.02, 0.05, 0.15)
TRIES: Final = RetryPolicy(attempts_max=4, backoff="fixed", first_delay_seconds=0.02)

LEAVES: Final = {
    "step": 30,
    "tried": 8,
    "once": 4,
    "sleep": 10,
    "signal": 10,
    "left_child": 2,
    "asking": 6,
    "raise": 3,
    "unsteady": 4,
}
BRANCHES: Final = {
    "seq": 10,
    "gather": 12,
    "group": 8,
    "race": 10,
    "timeout": 8,
    "catch": 8,
    "finally": 6,
    "given_up": 6,
    "child": 12,
    "family": 6,
}
SEVERAL: Final = frozenset({"seq", "gather", "group", "race"})


class Unwanted(Exception):
    """What programs raise."""


# -- programs --------------------------------------------------------------------------------------------------


class ProgramMaker:
    """Makes one program from a seed."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)
        self._left = self._rng.choice((4, 8, 14, 22))
        self._number = 0

    def make(self) -> Node:
        """A program of up to about 40 nodes."""
        body = [self._node(0)]
        while self._left > 0:
            body.append(self._node(0))
        return {"kind": "seq", "id": 0, "body": body, "retried": self._rng.random() < 0.4}

    def _node(self, depth: int) -> Node:
        rng = self._rng
        self._left -= 1
        self._number += 1
        weights = LEAVES if depth >= 4 or self._left <= 0 or rng.random() < 0.4 else BRANCHES
        kind = rng.choices(list(weights), list(weights.values()))[0]
        node: Node = {"kind": kind, "id": self._number, "delay": rng.choice(DELAYS)}
        if kind in SEVERAL:
            node["body"] = [self._node(depth + 1) for _ in range(rng.choice((2, 2, 3)))]
        elif kind in BRANCHES:
            node["body"] = [self._node(depth + 1)]
        if kind == "tried":
            node["fails"] = rng.choice((1, 2, 9))
        elif kind in ("signal", "asking"):
            node["name"] = rng.choice(CHANNELS)
        elif kind == "finally":
            node["cleanup"] = self._node(depth + 2)
        elif kind in ("child", "family"):
            node["retried"] = rng.random() < 0.3
        elif kind == "unsteady":
            node["fails"] = rng.choice((1, 1, 2))
        return node


def make_program(seed: str) -> Node:
    """The program of a seed."""
    return ProgramMaker(seed).make()


# -- what may come of them -------------------------------------------------------------------------------------


def may_raise(node: Node, *, disturbed: bool) -> bool:
    """Whether a node may raise. `disturbed`: somebody from outside ended children of this flow."""
    kind = node["kind"]
    if kind in ("raise", "unsteady"):
        return True
    if kind == "tried":
        return bool(node["fails"] >= TRIES.attempts_max)
    if kind == "catch":
        return False
    if kind in ("child", "family"):
        return disturbed or any(may_raise(each, disturbed=disturbed) for each in node["body"])
    inner = [*node.get("body", ()), *([node["cleanup"]] if "cleanup" in node else ())]
    return any(may_raise(each, disturbed=disturbed) for each in inner)


def fits(node: Node, value: Any, *, disturbed: bool) -> bool:
    """Whether a node may have come to this value."""
    kind, body = node["kind"], node.get("body", ())

    def is_of(place: int, given: Any) -> bool:
        return fits(body[place], given, disturbed=disturbed)

    if kind in LEAVES:
        return _fits_leaf(node, value)
    if kind == "race":
        return isinstance(value, list) and len(value) == 2 and is_of(*value)
    if kind in SEVERAL:
        return (
            isinstance(value, list) and len(value) == len(body) and all(map(is_of, range(len(body)), value))
        )
    if kind == "catch" and value == "caught" and may_raise(body[0], disturbed=disturbed):
        return True
    given_up = {"timeout": "timeout", "given_up": "given up"}.get(kind)
    return (given_up is not None and value == given_up) or is_of(0, value)


def _fits_leaf(node: Node, value: Any) -> bool:
    kind = node["kind"]
    if kind in ("sleep", "left_child"):
        return value is None
    begin = f"{node['name']}!" if kind in ("signal", "asking") else f"{node['id']}."
    return isinstance(value, str) and (value.startswith(begin) or (kind == "once" and value == "interrupted"))


def signals_in(value: Any) -> Iterator[str]:
    """The values of signals in a flow's value."""
    if isinstance(value, list):
        for each in value:
            yield from signals_in(each)
    elif isinstance(value, str) and "!" in value:
        yield value


# -- playing ---------------------------------------------------------------------------------------------------


@step
async def work(number: int, seconds: float) -> str:
    with effecting(str(number)) as token:
        await asyncio.sleep(seconds)
        return token


@step(retry=TRIES)
async def tried(number: int, seconds: float, fails: int) -> str:
    body: Any = step_context.get()
    with effecting(str(number)) as token:
        await asyncio.sleep(seconds)
        if body.attempt <= fails:
            raise Unwanted("not in this attempt")
        return token


@step(at_most_once=True)
async def once(number: int, seconds: float) -> str:
    with effecting(str(number), amo=True) as token:
        await asyncio.sleep(seconds)
        return token


@step
async def unsteady(number: int, fails: int) -> str:
    body: Any = step_context.get()
    with effecting(str(number)) as token:
        if body.op.machine.attempt <= fails:
            raise Unwanted("not in this attempt of the flow")
        return token


@step
async def asking(seconds: float, name: str) -> str:
    await schedule_timer(seconds)
    return await wait_signal(name, str)


@step
async def family(program: Node, seconds: float) -> Any:
    await asyncio.sleep(seconds / 4)
    value = await invoke(steady.bind(program)).result()
    await asyncio.sleep(seconds / 4)
    return value


@flow
async def steady(program: Node) -> Any:
    return await _play(program)


@flow(retry=RetryPolicy(attempts_max=ATTEMPTS_MAX, backoff="fixed", first_delay_seconds=0.03))
async def retried(program: Node) -> Any:
    return await _play(program)


FLOWS: Final = (steady, retried)


def call_of(program: Node) -> Any:
    """The flow that plays a program."""
    return (retried if program.get("retried") else steady).bind(program)


async def _play(node: Node) -> Any:
    return await _PLAYS[node["kind"]](node)


async def _step(node: Node) -> Any:
    return await work(node["id"], node["delay"])


async def _tried(node: Node) -> Any:
    return await tried(node["id"], node["delay"], node["fails"])


async def _once(node: Node) -> Any:
    try:
        return await once(node["id"], node["delay"])
    except StepInterrupted:
        return "interrupted"


async def _sleep(node: Node) -> Any:
    await asyncio.sleep(node["delay"])


async def _signal(node: Node) -> Any:
    return await wait_signal(node["name"], str)


async def _left_child(node: Node) -> Any:
    invoke(steady.bind({"kind": "step", "id": node["id"], "delay": node["delay"]}), detached=True)


async def _asking(node: Node) -> Any:
    return await asking(node["delay"], node["name"])


async def _raise(node: Node) -> Any:
    await asyncio.sleep(node["delay"])
    raise Unwanted(str(node["id"]))


async def _unsteady(node: Node) -> Any:
    return await unsteady(node["id"], node["fails"])


async def _seq(node: Node) -> Any:
    return [await _play(each) for each in node["body"]]


async def _gather(node: Node) -> Any:
    return await asyncio.gather(*(_play(each) for each in node["body"]))


async def _group(node: Node) -> Any:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_play(each)) for each in node["body"]]
    except* Exception as failed:
        raise Unwanted("a group failed") from failed
    return [task.result() for task in tasks]


def _started(node: Node) -> asyncio.Task[Any]:
    """A task whose error nobody may ever ask for."""
    task = asyncio.create_task(_play(node))
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # retrieved
    return task


async def _race(node: Node) -> Any:
    tasks = [_started(each) for each in node["body"]]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
    first = next(place for place, task in enumerate(tasks) if task in done)
    return [first, tasks[first].result()]


async def _timeout(node: Node) -> Any:
    try:
        async with asyncio.timeout(node["delay"]):
            return await _play(node["body"][0])
    except TimeoutError:
        return "timeout"


async def _catch(node: Node) -> Any:
    try:
        return await _play(node["body"][0])
    except Exception:
        return "caught"


async def _finally(node: Node) -> Any:
    try:
        return await _play(node["body"][0])
    finally:
        await _play(node["cleanup"])


async def _given_up(node: Node) -> Any:
    """A task that somebody else cancels after a while."""
    task = _started(node["body"][0])
    await asyncio.sleep(node["delay"])
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait([task])
    return "given up" if task.cancelled() else task.result()


async def _child(node: Node) -> Any:
    return await invoke(call_of(node["body"][0] | {"retried": node["retried"]})).result()


async def _family(node: Node) -> Any:
    return await family(node["body"][0], node["delay"])


_PLAYS: Final = {
    "step": _step,
    "tried": _tried,
    "once": _once,
    "sleep": _sleep,
    "signal": _signal,
    "left_child": _left_child,
    "asking": _asking,
    "raise": _raise,
    "unsteady": _unsteady,
    "seq": _seq,
    "gather": _gather,
    "group": _group,
    "race": _race,
    "timeout": _timeout,
    "catch": _catch,
    "finally": _finally,
    "given_up": _given_up,
    "child": _child,
    "family": _family,
}
assert _PLAYS.keys() == LEAVES.keys() | BRANCHES.keys()


# -- the process that plays them -------------------------------------------------------------------------------


def worker(*, folder: str, url: str, name: str) -> None:
    """Entry of a worker process with room for few flows: runs until SIGTERM."""
    logging.basicConfig(format=f"%(relativeCreated)6d {os.getpid()} %(name)s %(levelname)s %(message)s")
    use_ledger(Ledger(Path(folder) / "ledger"))
    asyncio.run(_work(url, name))


async def _work(url: str, name: str) -> None:
    options = WorkerOptions(
        capacity=5,
        lease_seconds=3.0,
        reap_seconds=0.1,
        poll_seconds=0.2,
        evict_after_seconds=0.01,
        drain_seconds=2.0,
        claims_stalled_max=100_000,
    )
    await work_until_told(url, name, FLOWS, options)
