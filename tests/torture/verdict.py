"""What must hold after a run of the nemesis, and what must have happened for the run to count. Pure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from tests.crash.checker import Expected, Violation, check
from tests.crash.ledger import Record
from tests.crash.snapshot import Row
from tests.torture.nemesis import Evidence, digest

KINDS = (
    "transfer", "saga", "approval", "sleeper", "leaf", "fan_out", "long", "cancellable", "unsteady", "careful",
    "asking", "forked", "bulky",
)  # fmt: skip


def judge(evidence: Evidence) -> list[Violation]:
    """Every promise that was not kept."""
    found = [Violation("I16", problem) for problem in evidence.problems]
    found += check([evidence.life], Expected(shared=True, may_drop=True))
    found += _glimpses(evidence)
    found += _money(evidence)
    found += _wakes(evidence.records)
    found += _at_most_once(evidence.records)
    found += _cancels(evidence)
    for id, row in evidence.final.flows.items():
        found += _outcome(id, row, evidence)
    return found


def void(evidence: Evidence, *, scale: float) -> list[str]:
    """Why the run proves nothing: faults that hit no open work, kinds of flow that never finished."""
    finished = Counter(row["name"] for row in evidence.final.flows.values())
    least = max(round(20 * scale), 1)
    facts = {
        "kills with a step open": evidence.counts["kills with a step open"],
        "zombies": evidence.counts["zombies"],
        "client kills": evidence.counts["client kills"],
        **{f"flows of kind {kind}": finished[kind] for kind in KINDS},
    }
    return [f"{name}: {count}, at least {least} are needed" for name, count in facts.items() if count < least]


def summary(evidence: Evidence) -> dict[str, Any]:
    """The figures of the report."""
    begun: dict[tuple[Any, ...], int] = Counter(
        (record["key"], record["flow_attempt"], record["attempt"])
        for record in evidence.records
        if record.kind == "BEGIN"
    )
    lateness = sorted(r["wall"] - r["due"] for r in evidence.records if r.kind == "WAKE")
    return {
        "seconds": round(evidence.seconds, 1),
        **dict(sorted(evidence.counts.items())),
        "flows": len(evidence.final.flows),
        "flows by end": dict(Counter(row["status"] for row in evidence.final.flows.values())),
        "events": sum(map(len, evidence.final.events.values())),
        "histories compared with what was seen before": len(evidence.glimpses),
        "signals": sum(row["kind"] == "signal" for row in evidence.final.inbox),
        "step executions": sum(begun.values()),
        "repeated, each explained by a fault": sum(count - 1 for count in begun.values()),
        "leases lost and said so": evidence.stderr.count("lost its lease"),
        "stale runs refused": evidence.stderr.count("this run is void and writes nothing more"),
        "timer lateness p99, ms": round(lateness[int(len(lateness) * 0.99)] * 1000) if lateness else None,
    }


# -- rules ---------------------------------------------------------------------------------------------------


def _glimpses(evidence: Evidence) -> Iterator[Violation]:
    """I3: what anyone saw of a history during the run is still its beginning."""
    for id, count, seen in evidence.glimpses:
        if digest(evidence.final.events.get(id, [])[:count]) != seen:
            yield Violation("I3", f"flow {id}: its first {count} events are not those that were seen before")


def _money(evidence: Evidence) -> Iterator[Violation]:
    """I10: counted once for each key, every transfer is whole and every saga is undone."""
    applied: dict[str, Record] = {}
    for record in evidence.records:
        if record.kind == "APPLY":
            applied.setdefault(record["key"], record)
    balance: dict[str, int] = defaultdict(int)
    count: dict[str, int] = defaultdict(int)
    for key, record in applied.items():
        flow = key.split("/")[0]
        balance[flow] += record["amount"]
        count[flow] += 1
    for flow, amount in balance.items():
        if amount:
            yield Violation("I10", f"flow {flow}: {amount} came from nowhere")
    for id, row in evidence.final.flows.items():
        expected = {"transfer": 2, "saga": 4}.get(row["name"])
        if expected is not None and count[id] != expected:
            yield Violation("I10", f"flow {id} moved money {count[id]} times, {expected} were asked for")


def _wakes(records: list[Record]) -> Iterator[Violation]:
    """I8: nobody woke up early."""
    for record in records:
        if record.kind == "WAKE" and record["wall"] < record["due"] - 1e-6:
            yield Violation("I8", f"{record} came early")


def _at_most_once(records: list[Record]) -> Iterator[Violation]:
    begun: dict[str, Record] = {}
    for record in records:
        if record.kind == "BEGIN" and record["amo"]:
            first = begun.setdefault(record["key"], record)
            if first is not record:
                yield Violation("I5", f"{record}: at most once, but {first}")


def _cancels(evidence: Evidence) -> Iterator[Violation]:
    """I12: once a cancel is acknowledged the flow is cancelled, and the step it would wait in hardly starts."""
    asked: dict[str, Record] = {}
    begun: dict[str, int] = defaultdict(int)
    for record in evidence.records:
        if record.kind == "ACK" and record["what"] == "cancel":
            asked.setdefault(record["flow"], record)
        elif record.kind == "BEGIN" and record["label"] == "slow" and record["flow"] in asked:
            begun[record["flow"]] += 1
    for id, ack in asked.items():
        if evidence.final.flows[id]["status"] != "cancelled":
            yield Violation("I12", f"{ack}, but the flow is {evidence.final.flows[id]['status']}")
        if begun[id] > evidence.plan.workers:
            yield Violation("I12", f"{ack}, and yet its step began {begun[id]} times after that")


def _outcome(id: str, row: Row, evidence: Evidence) -> Iterator[Violation]:
    """I1, I2: each flow came to the end its kind must come to."""
    name, status = row["name"], row["status"]
    wanted = ("completed", "cancelled") if name == "cancellable" else ("completed",)
    if status not in wanted:
        yield Violation("I14", f"flow {id} is {status}: {row['output'] or row['reason']}")
        return
    given, output = json.loads(row["input"]), json.loads(row["output"] or "null")
    if status != "completed":
        return
    right = _RIGHT.get(name, lambda id, given, output: True)
    if not right(id, given, output):
        yield Violation("I1", f"flow {id} was given {given} and returned {output}")


def _approved(id: str, given: Any, output: Any) -> bool:
    return bool(output == [f"{id}:{n}" for n in range(given["count"])])


_RIGHT: dict[str, Any] = {
    "approval": _approved,
    "asking": lambda id, given, output: output == f"{id}:inside",
    "leaf": lambda id, given, output: output == given["number"],
    "fan_out": lambda id, given, output: output == sum(range(given["count"])),
    "long": lambda id, given, output: len(set(output)) == given["count"],
    "transfer": lambda id, given, output: len(set(output)) == 3,
    "saga": lambda id, given, output: len(set(output)) == 4,
    "sleeper": lambda id, given, output: len(set(output)) == len(given["pauses"]),
    "careful": lambda id, given, output: output in ("done", "interrupted"),
    "forked": lambda id, given, output: len(set(output)) == 2,
    "bulky": lambda id, given, output: output == given["size"],
}
