"""Compare what happened outside with what the log says. Pure: evidence in, violations out.

Evidence is a list of lives: what one process (or all that ran at the same time) wrote to the ledger, and the rows
that were durable when it ended. The rules are numbered as in the list of promises:

    I1  what was acknowledged exists            I2  a signal is in exactly one wait, in order
    I3  one result per step, never changed      I4  a step is not started after it was committed
    I5  a step is started again only if it was open, and none is lost
    I6  epochs grow                             I7  one owner for each epoch
    I8  a timer fires once and not early        I13 an end never changes
    I14 everything ends                         I15 the file is sound
    I16 nothing unexpected is on stderr
"""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tests.crash.ledger import Record
from tests.crash.snapshot import Row, Snapshot

ANSWERS: Final = frozenset(
    {"step_completed", "step_failed", "timer_fired", "child_completed", "child_failed"}
)
ENDS_ATTEMPT: Final = frozenset({"step_completed", "step_failed", "step_retried"})
TERMINAL: Final = frozenset({"completed", "failed", "cancelled"})


class Violation(NamedTuple):
    """A promise that was not kept, with the shortest evidence."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True)
class Life:
    """One process from its start to its end, or several at the same time."""

    records: list[Record]
    after: Snapshot
    """What was durable when it ended."""
    killed: bool
    status: int | None
    """Exit code or minus the signal; None: it did not end and was killed by the harness."""
    stderr: str = ""


@dataclass(frozen=True)
class Expected:
    """What a scenario must come to."""

    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    timers: dict[str, tuple[float, ...]] = field(default_factory=dict)
    may_drop: bool = False
    ends: dict[str, str] = field(default_factory=dict)
    """Statuses in which flows may be in the end that are no ends."""
    deleted: frozenset[str] = frozenset()
    retried: bool = False
    """An operator tries failed flows again."""
    reaped: bool = True
    """A worker was there to the end, so no dead one may still count as alive."""
    check: Callable[[Snapshot], Iterator[str]] | None = None
    shared: bool = False
    """Several processes ran at the same time; NEM records say which were stopped or killed, and when."""


class Execution(NamedTuple):
    """One attempt of one step: what may be begun once, and again only when a kill found it open."""

    flow: str
    op: str
    flow_attempt: int
    attempt: int

    @classmethod
    def of(cls, record: Record) -> Execution:
        """The execution that a BEGIN or END is about."""
        return cls(record["flow"], record["op"], record["flow_attempt"], record["attempt"])

    def __str__(self) -> str:
        return f"{self.flow}/{self.op} (attempt {self.attempt}, attempt {self.flow_attempt} of its flow)"


def check(lives: list[Life], expected: Expected) -> list[Violation]:
    """All rules over all lives, in the order in which one should read them."""
    rules: tuple[Iterable[Violation], ...] = (
        _sound(lives),
        _ended(lives, reaped=expected.reaped, ends=expected.ends),
        _acknowledged(lives, expected.deleted),
        _unchanged(lives, expected),
        *(_history(life.after) for life in lives),
        *(_children(life.after) for life in lives),
        *(_signals(life.after) for life in lives),
        _shared(lives) if expected.shared else (),
        _executions(lives, expected),
        _seen(lives, expected.deleted),
        _owners(lives),
        _results(lives, expected),
        _timers(lives[-1].after, expected),
        _stderr(lives, parked="parked" in expected.ends.values()),
    )
    found = list(dict.fromkeys(itertools.chain.from_iterable(rules)))
    if expected.check is not None:
        found += [Violation("scenario", text) for text in expected.check(lives[-1].after)]
    return found


def check_rows(rows: Snapshot) -> list[Violation]:
    """The rules that look at nothing but what is durable at one moment."""
    damage = [Violation("I15", problem) for problem in rows.problems]
    return [*damage, *_history(rows), *_signals(rows)]


# -- the rules -------------------------------------------------------------------------------------------


def _sound(lives: list[Life]) -> Iterator[Violation]:
    for number, life in enumerate(lives):
        for problem in life.after.problems:
            yield Violation("I15", f"after life {number}: {problem}")


def _ended(lives: list[Life], *, reaped: bool, ends: dict[str, str]) -> Iterator[Violation]:
    for number, life in enumerate(lives):
        if life.status is None:
            stuck = [f"{row['id']} is {row['status']}" for row in life.after.flows.values()]
            yield Violation("I14", f"life {number} did not end by itself: {', '.join(stuck)}")
        elif not life.killed and life.status != 0:
            yield Violation("I16", f"life {number} ended with {life.status}: {life.stderr[-600:]}")
    last = lives[-1].after
    for row in last.flows.values():
        if row["status"] != ends.get(row["id"]) and (row["id"] in ends or row["status"] not in TERMINAL):
            yield Violation("I14", f"flow {row['id']} is {row['status']} in the end ({row['reason']})")
    for worker in last.workers.values():
        if reaped and worker["state"] in ("alive", "draining"):
            yield Violation("I14", f"worker {worker['id']} is still {worker['state']} after everything ended")


def _acknowledged(lives: list[Life], deleted: frozenset[str]) -> Iterator[Violation]:
    """I1, I2: what a call of ours returned for is in the rows of that moment and of every later one."""
    acks: list[Record] = []
    for number, life in enumerate(lives):
        acks += [record for record in life.records if record.kind == "ACK"]
        kept = {(row["flow_id"], row["kind"], row["name"], row["key"]) for row in life.after.inbox}
        for ack in acks:
            if ack["flow"] in deleted:
                if ack["what"] == "delete" and ack["flow"] in life.after.flows:
                    yield Violation("I1", f"{ack}, but after life {number} the flow is there")
            elif ack["what"] == "schedule" and ack["flow"] not in life.after.flows:
                yield Violation("I1", f"{ack}, but after life {number} there is no such flow")
            elif ack["what"] == "signal" and (ack["flow"], "signal", ack["name"], ack["key"]) not in kept:
                yield Violation("I2", f"{ack}, but after life {number} there is no such message")
            elif ack["what"] == "cancel" and (ack["flow"], "cancel", "", "cancel") not in kept:
                yield Violation("I12", f"{ack}, but after life {number} there is no such message")


def _unchanged(lives: list[Life], expected: Expected) -> Iterator[Violation]:
    """I3, I13: histories only grow, ends never change."""
    ends = TERMINAL - {"failed"} if expected.retried else TERMINAL
    for number, (life, later) in enumerate(itertools.pairwise(lives)):
        for id, flow in life.after.flows.items():
            now = later.after.flows.get(id)
            if now is None and id in expected.deleted:
                continue
            if now is None:
                yield Violation("I1", f"flow {id} was there after life {number} and is gone")
                continue
            yield from _grown(id, number, life.after.events[id], later.after.events[id])
            fixed = ["name", "input", "created_at", "parent_id", "parent_op"]
            if flow["status"] in ends:
                fixed += ["status", "output", "ended_at"]
            for column in fixed:
                if flow[column] != now[column]:
                    yield Violation(
                        "I13",
                        f"flow {id}: {column} was {flow[column]!r} after life {number} and is {now[column]!r}",
                    )
            if now["epoch"] < flow["epoch"]:
                yield Violation("I6", f"flow {id}: its epoch fell from {flow['epoch']} to {now['epoch']}")


def _grown(id: str, number: int, events: list[Row], later: list[Row]) -> Iterator[Violation]:
    for before, after in itertools.zip_longest(events, later[: len(events)]):
        if before != after:
            yield Violation("I3", f"flow {id}: an event changed after life {number}: {before} is now {after}")


def _history(rows: Snapshot) -> Iterator[Violation]:
    """I3: events without a gap, one answer for each operation."""
    for id, events in rows.events.items():
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            yield Violation("I3", f"flow {id}: its events are numbered {[event['seq'] for event in events]}")
        for flow_attempt in _by_flow_attempt(events):
            answers = Counter(event["op"] for event in flow_attempt if event["kind"] in ANSWERS)
            waits = Counter(
                (event["op"], event["attempt"]) for event in flow_attempt if event["kind"] == "step_waited"
            )
            waits -= Counter(
                (op, attempt)
                for op, attempt in waits
                for event in flow_attempt
                if event["kind"] == "signal_returned" and event["op"] == op
            )
            retries = Counter(
                (event["op"], event["attempt"]) for event in flow_attempt if event["kind"] == "step_retried"
            )
            for counts in (answers, waits, retries):
                for what, count in counts.items():
                    if count > 1:
                        yield Violation("I3", f"flow {id}: operation {what} was answered {count} times")


def _children(rows: Snapshot) -> Iterator[Violation]:
    """I3: one child for each that was asked for."""
    asked = Counter((row["parent_id"], row["parent_op"]) for row in rows.flows.values() if row["parent_id"])
    for (parent, op), count in asked.items():
        if count > 1:
            yield Violation("I3", f"flow {parent}: operation {op} has {count} children")


def _signals(rows: Snapshot) -> Iterator[Violation]:
    """I2: at every moment, what the history has of a name is what the inbox says was taken of it, in order."""
    taken: dict[tuple[str, str], list[str]] = defaultdict(list)
    left: dict[tuple[str, str], int] = {}
    for message in rows.inbox:
        where = (message["flow_id"], message["name"])
        if message["kind"] != "signal":
            continue
        if message["consumed_seq"] is None:
            left[where] = message["id"]
            continue
        taken[where].append(message["payload"])
        if where in left:
            yield Violation("I2", f"signal {message['id']} of {where} was taken before {left[where]}")
    heard = _heard(rows)
    for where in taken.keys() | heard.keys():
        if taken[where] != heard[where]:
            both = f"taken from the inbox {taken[where]}, in the history {heard[where]}"
            yield Violation("I2", f"signals of {where}: {both}")


def _received(events: list[Row]) -> list[Row]:
    """The events without the signals that went back to the inbox."""
    left = list(events)
    for returned in [event for event in events if event["kind"] == "signal_returned"]:
        for event in reversed(left[: left.index(returned)]):
            if event["kind"] == "step_waited" and event["op"] == returned["op"]:
                left.remove(event)
                break
    return left


def _heard(rows: Snapshot) -> dict[tuple[str, str], list[str]]:
    """Signals in histories, by flow and name; those that a retried flow sees again count once."""
    heard: dict[tuple[str, str], list[str]] = defaultdict(list)
    for id, events in rows.events.items():
        for event in _received(events):
            if event["kind"] == "signal_received" and event["digest"] != "again":
                heard[id, event["name"]].append(event["payload"])
            elif event["kind"] == "step_waited" and (key := _wait_of(event)).startswith("signal:"):
                heard[id, key[len("signal:") :].rpartition("#")[0]].append(event["payload"])
    return heard


def _wait_of(event: Row) -> str:
    """Which wait in a step's body was answered: it stands behind the step's operation, `0:2/signal:go#1`."""
    return str(event["op"]).partition(":")[2].partition("/")[2]


def _executions(lives: list[Life], expected: Expected) -> Iterator[Violation]:
    """I4, I5: an execution begins once in a life, again only if the kill before found it open, and none is lost."""
    verified = [record.number for life in lives for record in life.records if record.kind == "VERIFY"]
    settled: set[Execution] = set()
    first: dict[Execution, Record] = {}
    for number, life in enumerate(lives):
        begun: set[Execution] = set()
        for record in life.records:
            if record.kind != "BEGIN":
                continue
            execution = Execution.of(record)
            earlier = first.setdefault(execution, record)
            if execution in settled:
                yield Violation(
                    "I4", f"{record}: it began again though its end was durable before life {number}"
                )
            if execution in begun and not expected.shared:
                yield Violation(
                    "I5", f"{record}: it began twice in life {number}, without a crash in between"
                )
            asked = any(earlier.number < at < record.number for at in verified)
            if record["amo"] and earlier is not record and not asked:
                yield Violation("I5", f"{record}: at most once, but it began before: {earlier}")
            begun.add(execution)
        settled |= _settled(life.after)
    yield from _keys(first.values())
    if not expected.may_drop:
        kept = {
            execution: begin for execution, begin in first.items() if execution.flow not in expected.deleted
        }
        yield from _lost(lives[-1].after, kept)


def _keys(begun: Iterable[Record]) -> Iterator[Violation]:
    """I5: an idempotency key is of one call, in all attempts of its flow."""
    calls: dict[str, Record] = {}
    for record in begun:
        if (key := record.get("key")) is None:
            continue  # a body in a process of its own does not know its key
        other = calls.setdefault(key, record)
        if other["label"] != record["label"]:
            yield Violation("I5", f"{record} has the key of another call: {other}")


def _shared(lives: list[Life]) -> Iterator[Violation]:
    """I4 to I6, for processes that ran at the same time.

    An execution begins again only under a higher epoch and after its process was stopped or killed. The last to
    begin it is the one whose result was kept: had an earlier one been committed, nobody would have begun again. A
    stopped owner that wakes up may finish the body it was in; it begins at most one more (frozen between the
    question whether it may and the body's first line), and nothing it does is kept.
    """
    records = [record for life in lives for record in life.records]
    faults = _faults(records)
    begun: dict[Execution, list[Record]] = defaultdict(list)
    highest: dict[str, int] = {}
    late: Counter[int] = Counter()
    for record in records:
        if record.kind != "BEGIN":
            continue
        earlier, epoch = begun[Execution.of(record)], record["epoch"]
        is_late = epoch < highest.get(record["flow"], 0)
        late[record.pid] += is_late
        if is_late and late[record.pid] > len(faults[record.pid]):
            yield Violation("I4", f"{record}: its epoch was over (now {highest[record['flow']]})")
        if earlier and not is_late and not _explained(earlier[-1], record, faults):
            yield Violation("I5", f"{record}: it began before, and nothing happened to {earlier[-1]}")
        earlier.append(record)
        highest[record["flow"]] = max(highest.get(record["flow"], 0), epoch)
    kept = _payload_tokens(lives[-1].after)
    for executions in begun.values():
        last = max(record["epoch"] for record in executions)
        for record in executions:
            if record["token"] in kept and record["epoch"] < last:
                yield Violation(
                    "I4", f"{record} was committed, and yet it began again later: {executions[-1]}"
                )


def _faults(records: list[Record]) -> dict[int, list[tuple[int, int]]]:
    """For each process when it was hit: from and to which record."""
    faults: dict[int, list[tuple[int, int]]] = defaultdict(list)
    begun: dict[int, int] = {}
    for record in records:
        if record.kind == "LOST":  # it was starved; since when, nobody knows
            faults[record["target"]].append((-1, record.number))
        elif record.kind == "NEM" and record.get("phase") == "begin":
            begun[record["fault"]] = record.number
        elif record.kind == "NEM":
            faults[record["target"]].append(
                (begun.get(record.get("fault") or 0, record.number), record.number)
            )
    return faults


def _explained(earlier: Record, again: Record, faults: dict[int, list[tuple[int, int]]]) -> bool:
    """Whether a fault that hit the process of the earlier execution explains that it began again."""
    hit = any(begin < again.number and earlier.number < end for begin, end in faults[earlier.pid])
    return hit and again["epoch"] > earlier["epoch"]


def _lost(final: Snapshot, first: dict[Execution, Record]) -> Iterator[Violation]:
    """I5: what began has an answer. That of an interrupted at-most-once step may bear another attempt's number."""
    answered = {
        (id, event["op"])
        for id, events in final.events.items()
        for event in events
        if event["kind"] in ANSWERS
    }
    for execution, record in first.items():
        if (execution.flow, execution.op) not in answered:
            yield Violation("I5", f"{execution} began ({record}) and was never settled: it is lost")


def _settled(rows: Snapshot) -> set[Execution]:
    """The attempts whose end is durable."""
    found = set()
    for id, events in rows.events.items():
        for flow_attempt, part in enumerate(_by_flow_attempt(events), 1):
            for event in part:
                if event["kind"] in ENDS_ATTEMPT:
                    found.add(Execution(id, event["op"], flow_attempt, event["attempt"]))
    return found


def _seen(lives: list[Life], deleted: frozenset[str]) -> Iterator[Violation]:
    """I3: what a flow gave to a step, or made its result of, was durable by then; so no crash can change it."""
    for number, life in enumerate(lives):
        durable = _payload_tokens(life.after)
        for record in life.records:
            for token in record.get("saw") or () if record.get("flow") not in deleted else ():
                if token not in durable:
                    yield Violation(
                        "I3", f"{record}: it was given {token}, which is not durable after life {number}"
                    )


def _payload_tokens(rows: Snapshot) -> set[str]:
    return {
        token
        for events in rows.events.values()
        for event in events
        if event["payload"] is not None
        for token in _tokens(event["payload"])
    }


def _tokens(payload: str) -> Iterator[str]:
    value = json.loads(payload)
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        yield from (part for part in value if isinstance(part, str))
    elif isinstance(value, dict):  # a child's outcome, as a step's wait keeps it
        yield from (str(part) for part in value.values() if isinstance(part, str))


def _owners(lives: list[Life]) -> Iterator[Violation]:
    """I7: each epoch of a flow has one owner."""
    owners: dict[tuple[str, int], tuple[str, int]] = {}
    for life in lives:
        for record in life.records:
            if record.kind == "BEGIN":
                where, who = (record["flow"], record["epoch"]), (record["owner"], record.pid)
                if owners.setdefault(where, who) != who:
                    yield Violation("I7", f"{record}: epoch {where} belongs to {owners[where]}")


def _results(lives: list[Life], expected: Expected) -> Iterator[Violation]:
    """I1, I3, I13: the right labels, made of committed tokens, the same for everyone who asked."""
    told: dict[str, Record] = {}
    for life in lives:
        for record in life.records:
            if record.kind == "RESULT":
                before = told.setdefault(record["flow"], record)
                if before["value"] != record["value"]:
                    yield Violation("I13", f"{record} contradicts {before}")
    for id, labels in expected.labels.items():
        yield from _result(lives[-1].after, id, labels, told.get(id))


def _result(final: Snapshot, id: str, labels: tuple[str, ...], told: Record | None) -> Iterator[Violation]:
    row = final.flows.get(id)
    if row is None:
        yield Violation("I1", f"flow {id} does not exist in the end")
        return
    if row["status"] != "completed":
        yield Violation("I14", f"flow {id} is {row['status']}: {row['output'] or row['reason']}")
        return
    tokens = json.loads(row["output"])
    if tuple(token.split(".")[0] for token in tokens) != labels:
        yield Violation("I1", f"flow {id} returned {tokens}; {labels} was expected")
    for token in set(tokens) - _payload_tokens(final):
        yield Violation("I3", f"flow {id} returned {token}, which no event holds")
    if told is not None and told["value"] != tokens:
        yield Violation("I13", f"{told} is not what the log holds: {tokens}")


def _timers(final: Snapshot, expected: Expected) -> Iterator[Violation]:
    """I8: as many timers as were waited for, none early. Each is armed when the event before it is delivered."""
    for id, lasts in expected.timers.items():
        events = final.events.get(id, [])
        fired = [
            (before, event) for before, event in itertools.pairwise(events) if event["kind"] == "timer_fired"
        ]
        if len(fired) != len(lasts):
            yield Violation("I8", f"flow {id}: {len(fired)} timers fired, {len(lasts)} were waited for")
        for (before, event), seconds in zip(fired, lasts, strict=False):
            if event["at"] < before["at"] + seconds - 1e-6:
                early = before["at"] + seconds - event["at"]
                yield Violation("I8", f"flow {id}: timer {event['op']} fired {early * 1000:.1f} ms early")


ALARMS: Final = (
    "Traceback",
    "never retrieved",
    "was destroyed but it is pending",
    "was never awaited",
    "Exception ignored",
    "Fatal Python error",
    "its commit failed",
    "NonDeterminism",
)
"""What no process says whatever happens to it."""


def _stderr(lives: list[Life], *, parked: bool) -> Iterator[Violation]:
    """I16: no error that nobody expected."""
    for number, life in enumerate(lives):
        for alarm in (*ALARMS, "is parked"):
            if alarm in life.stderr and not (parked and alarm == "is parked"):
                at = life.stderr.index(alarm)
                yield Violation("I16", f"life {number} wrote: {life.stderr[max(at - 300, 0) : at + 900]}")
                break


def _by_flow_attempt(events: list[Row]) -> list[list[Row]]:
    parts: list[list[Row]] = [[]]
    for event in events:
        parts[-1].append(event)
        if event["kind"] == "flow_retried":
            parts.append([])
    return parts
