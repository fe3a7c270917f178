"""How many recorded events a second the flow loop replays: one flow, 20,000 steps one after the other.

    python -m benchmarks.replay_events

No log and no executor: what is measured is `ergon.replay` and a step's call.
"""

from __future__ import annotations

import statistics
import time
from typing import Any, Final

import ergon
from ergon.core.codec import digest
from ergon.core.history import Event, EventKind
from ergon.replay.machine import FlowMachine
from ergon.replay.operations import Operation

STEPS: Final = 20_000
ROUNDS: Final = 5


@ergon.step
async def add_one(number: int) -> int:
    return number + 1


async def long_flow() -> int:
    number = 0
    for _ in range(STEPS):
        number = await add_one(number)
    return number


def recorded() -> list[Event]:
    """The history that `long_flow` has made."""
    kind, name = EventKind.STEP_COMPLETED, add_one.name
    return [
        Event(
            seq, kind, f"0:{seq}", name, digest((seq - 1,), {}), str(seq), 1e9 + seq, "replay_events.py:31", 1
        )
        for seq in range(1, STEPS + 1)
    ]


def answer(op: Operation, event: Event) -> Any:
    return op.request.step.decoder.decode(event.payload)


def replay(history: list[Event]) -> float:
    """Seconds that one replay takes."""
    start = time.perf_counter()
    machine = FlowMachine(
        flow_id="long", started_at=1e9, history=history, entry=long_flow, answer=answer, on_error=print
    )
    machine.revive()
    seconds = time.perf_counter() - start
    assert machine.root is not None
    assert machine.root.result() == STEPS
    return seconds


def main() -> None:
    """Print the median of a few rounds."""
    history = recorded()
    rates = [STEPS / replay(history) for _ in range(ROUNDS)]
    print(f"{statistics.median(rates):,.0f} events/s (median of {ROUNDS}, {STEPS:,} steps each)")


if __name__ == "__main__":
    main()
