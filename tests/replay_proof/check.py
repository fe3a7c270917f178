"""Revive a recorded flow from every prefix of its history and compare what it sees with what it saw."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

from ergon.core.history import DELIVERED
from tests.replay_proof.host import Driver, Recording, State, Trace

CONTINUATIONS: int = 2
"""From how many prefixes of one history the flow is taken on to its end."""


class Difference(AssertionError):
    """A replay that is not like the first run."""


def check(recording: Recording, seed: str) -> None:
    """Raise `Difference` unless every replay of the recording equals its first run."""
    for count in range(len(recording.rows) + 1):
        with Driver(recording, recording.rows[:count]) as driver:
            revive(recording, driver, count)
        check_gone(driver, f"prefix of {count} rows")
    edges = list(boundaries(recording))
    for count in random.Random(seed).sample(edges, min(CONTINUATIONS, len(edges))):
        with Driver(recording, recording.rows[:count]) as driver:
            revive(recording, driver, count)
            go_on(recording, driver, count)
        check_gone(driver, f"gone on from {count} rows")


def boundaries(recording: Recording) -> Iterator[int]:
    """After how many rows a crash may leave the history."""
    at = 0
    for size in (0, *recording.batches):
        at += size
        yield at


def revive(recording: Recording, driver: Driver, count: int) -> None:
    """Replay; the flow must be in the state the first run was in after `count` rows, and ask for the same."""
    driver.machine.revive()
    compare(recording, driver, count, f"prefix of {count} rows")
    requested = [op.id for op in driver.machine.take_requested()]
    attempt, state = at_that_point(recording, count)
    # A flow that has ended leaves operations whose answers shared the last commit.
    rows = recording.rows[attempt:count] if driver.machine.finished else []
    answered = {event.op for event in rows if event.kind in DELIVERED}
    pending = [op[0] for op in state.pending if op[0] not in answered]
    if requested != pending:
        raise Difference(f"prefix of {count} rows: asks for {requested}, first asked for {pending}")


def compare(recording: Recording, driver: Driver, count: int, where: str) -> None:
    machine = driver.machine
    if machine.stopped is not None:
        raise Difference(f"{where}: {machine.stopped}")
    attempt, state = at_that_point(recording, count)
    first = recording.traces[attempt][: state.seen]
    compare_traces(first, driver.play.trace, where)
    now = State.of(machine, driver.play)
    if now != state:
        raise Difference(f"{where}:\n  first run {state}\n  replay    {now}")


def at_that_point(recording: Recording, count: int) -> tuple[int, State]:
    """When the attempt began that the first `count` rows belong to, and the state they led to."""
    attempt = max(start for start in recording.traces if start <= count)
    return attempt, recording.states[max(number for number in recording.states if number <= count)]


def compare_traces(first: Trace, again: Trace, where: str) -> None:
    if first == again:
        return
    place = next(
        (i for i, (a, b) in enumerate(zip(first, again, strict=False)) if a != b), min(len(first), len(again))
    )
    raise Difference(
        f"{where}: what the flow sees differs at entry {place}\n"
        f"  first run {first[max(0, place - 3) : place + 3]}\n"
        f"  replay    {again[max(0, place - 3) : place + 3]}"
    )


def go_on(recording: Recording, driver: Driver, count: int) -> None:
    """Let happen what happened after the first `count` rows."""
    following = [start for start in recording.traces if start > count]
    end = min(following, default=len(recording.rows) + 1) - 1  # an attempt ends with the row that says so
    at = count
    for edge in boundaries(recording):
        batch = recording.rows[at:edge] if at < edge <= end else []
        for event in batch:
            if event.op and event.kind in DELIVERED:
                driver.machine.expect(event)
        for event in batch:
            if event.kind in DELIVERED:
                driver.machine.deliver(event)
        at = max(at, edge if batch else at)
    compare(recording, driver, at, f"gone on from {count} rows")


def check_gone(driver: Driver, where: str) -> None:
    """Nothing of an evicted flow may stay behind."""
    machine = driver.machine
    left = [task for task in asyncio.all_tasks(machine.loop) if not task.done()]
    if left or machine.take_requested() or machine.pending:
        raise Difference(f"{where}: eviction left {left or machine.pending}")
    if driver.complaints:
        raise Difference(f"{where}: {driver.complaints}")
