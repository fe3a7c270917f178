"""What must hold after a round of random flows: pure, but for the replay, which runs the flows' code once more."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from ergon.core.commit import FlowRecord, read_reason
from ergon.core.history import Event
from ergon.core.status import TaskStatus
from ergon.executor.answers import enter, read_answer
from ergon.executor.earlier import read_earlier
from ergon.executor.settling import Retry, settle
from ergon.replay.machine import FlowMachine
from tests.crash.checker import ALARMS, Violation, check_rows
from tests.crash.ledger import Record
from tests.crash.snapshot import Snapshot
from tests.torture.fuzz_programs import FLOWS, Node, fits, may_raise, signals_in

PREFIXES: Final = 6
"""How many beginnings of a history are replayed, besides all of it."""


@dataclass
class Round:
    """What is known of the flows of one round when all of them should have ended."""

    programs: dict[str, Node]
    """The flows that were started from outside."""
    flows: dict[str, FlowRecord]
    """All that are there, children too."""
    histories: dict[str, list[Event]]
    records: list[Record]
    rows: Snapshot
    stderr: str
    cancelled: set[str] = field(default_factory=set)
    """Those that somebody from outside asked to cancel."""
    killed: set[str] = field(default_factory=set)
    """And those that were killed, perhaps deleted, and started again."""

    def root(self, flow_id: str) -> str:
        """The flow from outside that a flow descends from."""
        flow = self.flows.get(flow_id)
        while flow is not None and flow.parent_id is not None and flow.parent_id in self.flows:
            flow = self.flows[flow.parent_id]
        return flow.id if flow is not None else flow_id


def judge(seen: Round) -> list[Violation]:
    """Every promise that was not kept."""
    found = [*check_rows(seen.rows), *_alarms(seen.stderr), *_bodies(seen)]
    disturbed = {seen.root(flow_id) for flow_id in seen.cancelled | seen.killed}
    found += [
        Violation("I1", f"flow {flow_id} is gone") for flow_id in seen.programs if flow_id not in seen.flows
    ]
    for flow in seen.flows.values():
        found += _end(flow, seen, disturbed=seen.root(flow.id) in disturbed)
        if flow.status.is_terminal:
            found += _replayed(flow, seen.histories[flow.id], killed=flow.id in seen.killed)
    return found


# -- rules -----------------------------------------------------------------------------------------------------


def _alarms(stderr: str) -> Iterator[Violation]:
    for alarm in ALARMS:
        if alarm in stderr:
            at = stderr.index(alarm)
            yield Violation("I16", f"a worker wrote: {stderr[max(at - 500, 0) : at + 1500]}")
            return


def _end(flow: FlowRecord, seen: Round, *, disturbed: bool) -> Iterator[Violation]:
    """I1, I14: each flow ended, as its program may."""
    if not flow.status.is_terminal:
        yield Violation("I14", f"flow {flow.id} is {flow.status} in the end: {flow.reason}")
        return
    program = json.loads(flow.input)["program"]
    if flow.status is TaskStatus.CANCELLED:
        by_parent = flow.parent_id is not None
        if not by_parent and not disturbed:
            yield Violation("I12", f"flow {flow.id} is cancelled, and nobody asked for it")
    elif flow.status is TaskStatus.FAILED:
        if not may_raise(program, disturbed=disturbed):
            yield Violation(
                "I1", f"flow {flow.id} failed, which its program cannot: {(flow.output or '')[:600]}"
            )
    else:
        value = json.loads(flow.output or "null")
        if not fits(program, value, disturbed=disturbed):
            yield Violation("I1", f"flow {flow.id} came to {value}, which its program cannot: {program}")
        signals = list(signals_in(value))
        own = [one for one in signals if one.split("!")[1] == flow.id]
        if len(set(own)) != len(own):
            yield Violation("I2", f"flow {flow.id} has a signal twice: {value}")


def _bodies(seen: Round) -> Iterator[Violation]:
    """I3, I4: a body begins once for each claim, and no more under a claim that found its result."""
    begun: dict[tuple[Any, ...], dict[int, Record]] = defaultdict(dict)
    for record in seen.records:
        if record.kind != "BEGIN" or record["flow"] not in seen.flows:
            continue
        execution = (record["flow"], record["op"], record["flow_attempt"], record["attempt"])
        other = begun[execution].setdefault(record["epoch"], record)
        if other is not record:
            yield Violation("I4", f"{record}: it began before, under the same claim: {other}")
    kept = {
        value
        for history in seen.histories.values()
        for event in history
        if event.kind == "step_completed" and event.payload and event.payload.startswith('"')
        for value in [json.loads(event.payload)]
    }
    for executions in begun.values():
        last = max(executions)
        for epoch, record in executions.items():
            if record["token"] in kept and epoch < last:
                yield Violation("I4", f"{record} is recorded, and yet it began again: {executions[last]}")


def _replayed(flow: FlowRecord, history: Sequence[Event], *, killed: bool) -> Iterator[Violation]:
    """The history leads where the flow ended, and each beginning of it somewhere."""
    rng = random.Random(flow.id)
    counts = {rng.randrange(len(history)) for _ in range(PREFIXES)} if history else set()
    for count in sorted(counts):
        error, _ = replay(flow, history[:count])
        if error is not None:
            yield Violation("replay", f"flow {flow.id}, its first {count} events of {len(history)}: {error}")
    error, ended = replay(flow, history)
    if error is not None:
        yield Violation("replay", f"flow {flow.id}: {error}")
    elif flow.started_at is not None and not killed and ended != _as_kept(flow):
        yield Violation("replay", f"flow {flow.id}: it is {_as_kept(flow)}, its history leads to {ended}")


def _as_kept(flow: FlowRecord) -> tuple[str, str | None]:
    return flow.status.value, flow.output if flow.status is TaskStatus.COMPLETED else None


def replay(flow: FlowRecord, history: Sequence[Event]) -> tuple[str | None, tuple[str, str | None] | None]:
    """What goes wrong when a flow is replayed, and how it ends."""
    if flow.started_at is None:
        return None, None
    code = next(one for one in FLOWS if one.name == flow.name)
    complaints: list[Any] = []
    machine = FlowMachine(
        flow_id=flow.id,
        started_at=flow.started_at,
        history=history,
        entry=partial(enter, code, flow.input),
        answer=read_answer,
        on_error=lambda _, context: complaints.append(context),
    )
    try:
        machine.revive()
        if machine.stopped is not None:
            return str(machine.stopped), None
        if not machine.finished:
            return None, None
        cancels = read_earlier(history)[1]
        reason = read_reason(cancels[-1].payload) if cancels else None
        assert machine.root is not None
        settled = settle(machine.root, code, flow_id=flow.id, attempt=machine.attempt, cancel_reason=reason)
        if isinstance(settled, Retry):
            return None, ("another attempt", None)
        return None, (
            settled.status.value,
            settled.output if settled.status is TaskStatus.COMPLETED else None,
        )
    finally:
        machine.dismiss()
