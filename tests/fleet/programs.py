"""A worker in a process of its own: `python -m tests.fleet.programs URL LEDGER NAME [OPTIONS]`.

It says `ready`, works until SIGTERM and drains. OPTIONS is JSON: those of `WorkerOptions`, and `elsewhere`: then it
registers as a process of another machine, of which nobody here can know whether it lives.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from ergon import (
    ExecutionLog,
    Worker,
    WorkerOptions,
    flow,
    invoke,
    open_log,
    step,
    wait_signal,
    wait_told_to_stop,
)
from ergon.executor import incarnation
from ergon.storage.process import this_process
from tests.crash.ledger import Ledger, read_ledger

log_here: list[ExecutionLog] = []


def note(ledger: str, kind: str, label: str) -> None:
    """Tell the outside world, with the time by the log's clock."""
    Ledger(ledger).write(kind, label=label, log_at=log_here[-1].now())


@step
async def work(ledger: str, label: str, seconds: float) -> str:
    note(ledger, "BEGIN", label)
    await asyncio.sleep(seconds)
    note(ledger, "END", label)
    return label


@step
async def hang_once(ledger: str, label: str) -> str:
    """Never ends the first time."""
    first = not any(record["label"] == label for record in read_ledger(Path(ledger)))
    note(ledger, "BEGIN", label)
    if first:
        await asyncio.Event().wait()
    note(ledger, "END", label)
    return label


@flow
async def part(ledger: str, label: str) -> str:
    return await work(ledger, label, 0.01)


@flow
async def order(ledger: str, label: str) -> list[str]:
    """Two steps at once, a timer, a child and a last step."""
    done = list(await asyncio.gather(*(work(ledger, f"{label}/{n}", 0.02) for n in "ab")))
    await asyncio.sleep(0.05)
    done.append(await invoke(part.bind(ledger, f"{label}/child")).result())
    done.append(await work(ledger, f"{label}/last", 0.02))
    return done


@flow
async def long(ledger: str, steps: int) -> list[str]:
    """One step after the other."""
    return [await work(ledger, str(n), 0.04) for n in range(steps)]


@flow
async def hanging(ledger: str, label: str) -> str:
    return await hang_once(ledger, label)


@flow
async def asking() -> str:
    return await wait_signal("answer", str)


FLOWS: tuple[Any, ...] = (part, order, long, hanging, asking)


async def main(url: str, name: str, given: dict[str, Any]) -> None:
    if given.pop("elsewhere", False):
        there = msgspec.structs.replace(this_process(), boot_id="of-another-machine", host="elsewhere")
        vars(incarnation)["this_process"] = lambda: there
    async with open_log(url, require="D1") as log:
        log_here.append(log)
        async with Worker(log, name, flows=FLOWS, options=WorkerOptions(**given)):
            print("ready", flush=True)
            await wait_told_to_stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[3], json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}))
