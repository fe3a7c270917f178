"""Drive a flow's machine as an executor would, with a seeded choice of what happens next, and record it.

Facts are gathered into a batch, announced to the machine as they are gathered, and delivered one by one when the
batch is "durable"; so an operation may be left behind between the two.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from ergon.core.codec import encode
from ergon.core.failure import describe
from ergon.core.history import DELIVERED, Event, EventKind, wait_of
from ergon.executor.answers import read_answer
from ergon.replay.attempts import SEEN_AGAIN
from ergon.replay.loop import FlowTimer
from ergon.replay.machine import FlowMachine
from ergon.replay.operations import Operation, OperationKind
from tests.replay_proof.idioms import IdiomPlay
from tests.replay_proof.play import Play, Rejected, outcome
from tests.replay_proof.programs import Node, program_of_attempt

STARTED_AT: Final = 1_700_000_000.0
FACTS_MAX: Final = 120
"""A program that goes on for longer is let go where it stands: that is a history too."""
ATTEMPTS_MAX: Final = 3
AT_MOST_ONCE: Final = "beta"
"""The step whose starts are recorded, and which is never started twice."""

Trace = list[tuple[int, str, str]]


@dataclass(frozen=True, slots=True)
class State:
    """What a flow waits for after some events, and how much it has seen."""

    pending: tuple[tuple[str, str, str, str], ...]
    timers: tuple[tuple[str, float, str], ...]
    wanted: tuple[tuple[str, int], ...]
    kept: tuple[tuple[str, int], ...]
    """Signals that arrived and that nobody has taken yet."""
    seen: int
    outcome: str

    @classmethod
    def of(cls, machine: FlowMachine, play: Play) -> State:
        assert machine.root is not None
        return cls(
            pending=tuple((op.id, op.kind, op.name, op.digest) for op in machine.pending.values()),
            timers=tuple((timer.op, timer.when(), timer.name) for timer in machine.loop.armed()),
            wanted=tuple(sorted(machine.wanted_signals().items())),
            kept=tuple(sorted((name, len(box.values)) for name, box in machine.mailboxes.items())),
            seen=len(play.trace),
            outcome=outcome(machine.root),
        )


@dataclass
class Recording:
    """The first run of a program: its history, and what the flow had seen at each point of it."""

    program: Node
    flow_id: str
    rows: list[Event] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    """How many rows each commit brought."""
    states: dict[int, State] = field(default_factory=dict)
    """By the number of rows the flow had been given."""
    traces: dict[int, Trace] = field(default_factory=dict)
    """The trace of each attempt, by the number of rows when it began."""
    due: dict[int, float] = field(default_factory=dict)
    """When each timer that fired was due, by the number of its row. Not kept in files."""
    asked: list[Counter[str]] = field(default_factory=list)
    """How often each attempt called each step with each argument. Not kept in files."""


class Driver:
    """A machine with the program it runs; leaving it evicts the flow."""

    def __init__(self, recording: Recording, rows: Sequence[Event]) -> None:
        attempt = 1 + sum(row.kind == EventKind.FLOW_RETRIED for row in rows)
        self.play = IdiomPlay(program_of_attempt(recording.program, recording.flow_id, attempt))
        self.complaints: list[str] = []
        self.machine = FlowMachine(
            flow_id=recording.flow_id,
            started_at=STARTED_AT,
            history=rows,
            entry=self.play.main,
            answer=read_answer,
            on_error=self._on_error,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Whatever happened: a flow that is left to the garbage collector would run on in the midst of another.
        self.machine.dismiss()

    def _on_error(self, _flow_id: str, context: dict[str, Any]) -> None:
        if "never retrieved" not in context["message"]:
            self.complaints.append(f"{context['message']}: {context.get('exception')!r}")


class LiveHost:
    """Runs a program for the first time."""

    def __init__(self, recording: Recording, rng: random.Random) -> None:
        self.recording = recording
        self.rows = recording.rows
        self.counts: Counter[str] = Counter()
        self._rng = rng
        self._clock = STARTED_AT
        self._cancelled = False
        self._driver: Driver
        self._machine: FlowMachine

    def run(self) -> list[str]:
        """Run to the end, or until nothing can happen any more. Returns complaints."""
        complaints: list[str] = []
        while True:
            again = self._attempt()
            complaints += self._driver.complaints + self._driver.play.surprises
            if not again:
                return complaints

    def _attempt(self) -> bool:
        """One attempt of the flow; True when it failed and is to be tried again."""
        self._driver = Driver(self.recording, list(self.rows))
        self._machine = machine = self._driver.machine
        self._open: dict[str, Operation] = {}
        self._facts: list[Event] = []
        self._taken: Counter[str] = Counter()
        self._fired: set[str] = set()
        self.recording.traces[len(self.rows)] = self._driver.play.trace
        self.recording.asked.append(self._driver.play.asked)
        with self._driver:
            self._live(machine)
            return self._end_attempt()

    def _live(self, machine: FlowMachine) -> None:
        machine.revive()
        self._remember(len(self.rows))
        while machine.stopped is None and len(self.rows) < FACTS_MAX:
            self._take_requests()
            if machine.finished:
                break
            self._gather()
            if not self._facts:
                if self._cancelled:
                    break  # waits for nothing that can happen
                self._ask_to_cancel()
            self._commit()
        self.counts.update({f"ran {kind}": count for kind, count in self._driver.play.ran.items()})
        self.counts.update(
            {f"cancelled {kind}": count for kind, count in self._driver.play.cancelled.items()}
        )

    def _end_attempt(self) -> bool:
        machine = self._machine
        if machine.stopped is not None:
            self._driver.complaints.append(f"live: {machine.stopped}")
        retry = (
            machine.finished
            and machine.attempt < ATTEMPTS_MAX
            and self._rng.random() < 0.6
            and self._failed()
        )
        if retry:
            for op in machine.pending.values():
                if op.kind == OperationKind.CHILD and not machine.has_answer(op):
                    self._note(EventKind.CHILD_OPEN, op)
            self._facts.append(self._event(EventKind.FLOW_RETRIED))
            self.rows += self._facts
            self.recording.batches.append(len(self._facts))
        return retry

    def _failed(self) -> bool:
        root = self._machine.root
        assert root is not None
        return not root.cancelled() and root.exception() is not None

    # -- from what the flow asks to facts --------------------------------------------------------------

    def _take_requests(self) -> None:
        machine = self._machine
        patches, machine.new_patches = machine.new_patches, ()
        for name, source in patches:
            self._record(EventKind.PATCHED, name=name, source=source)
        for op in machine.take_abandoned():
            self.counts[f"abandoned {op.kind}"] += 1
            if self._open.pop(op.id, None) is not None and op.kind == OperationKind.CHILD:
                self._note(EventKind.ABANDONED, op)
        for op in machine.take_requested():
            call = machine.earlier.made.get(op.id)
            if call is not None and call.answer is not None:
                self.counts["reused"] += 1
                self.counts["reused elsewhere"] += call.answer.op != op.id
                self._settle(op, call.answer.kind, call.answer.payload)
            elif call is not None and call.started:
                self.counts["interrupted"] += 1
                machine.earlier.retraces = False
                self._settle(op, EventKind.STEP_FAILED, describe(Rejected("interrupted")))
            else:
                self._begin(op)
        if machine.attempt > 1:
            self._repeat_earlier()

    def _begin(self, op: Operation) -> None:
        self._machine.earlier.retraces = False
        self._open[op.id] = op
        if op.name == AT_MOST_ONCE:
            self._record(EventKind.STEP_STARTED, op=op.id, name=op.name, digest=op.digest)

    def _repeat_earlier(self) -> None:
        machine = self._machine
        wanted = {name: count - self._taken[name] for name, count in machine.wanted_signals().items()}
        for again in machine.earlier.signals_again(wanted):
            self._taken[again.name] += 1
            self._record(EventKind.SIGNAL_RECEIVED, name=again.name, payload=again.payload, digest=SEEN_AGAIN)
        if any(count > 0 for count in wanted.values()):
            machine.earlier.retraces = False
        for timer in machine.loop.armed():
            if timer.op not in self._fired and machine.earlier.slept(timer):
                self.counts["slept before"] += 1
                self._fire(timer, self._clock)

    def _fire(self, timer: FlowTimer, at: float) -> None:
        self._fired.add(timer.op)
        event = self._record(EventKind.TIMER_FIRED, op=timer.op, name=timer.name, digest=timer.digest, at=at)
        self.recording.due[event.seq] = timer.when()

    def _gather(self) -> None:
        """Let some things happen, in an order of chance."""
        size = self._rng.choice((1, 1, 1, 2, 2, 3, 5))
        if self._rng.random() < 0.02 and not self._cancelled:
            self._ask_to_cancel()
        for _ in range(size):
            choices: list[tuple[str, Any]] = [("op", op) for op in self._open.values()]
            choices += [("signal", name) for name, count in self._wanted() if count > self._taken[name]]
            if self._next_timer() is not None:
                choices.append(("timer", None))
            if not choices:
                return
            what, subject = self._rng.choice(choices)
            self._machine.earlier.retraces = False
            self._clock += self._rng.choice((0.0, 0.01, 0.4))
            if what == "op":
                self._answer(subject)
            elif what == "signal":
                self._taken[subject] += 1
                value = encode(f"{subject} {len(self.rows) + len(self._facts)}")
                self._record(EventKind.SIGNAL_RECEIVED, name=subject, payload=value)
            else:
                self._let_time_pass()

    def _wanted(self) -> list[tuple[str, int]]:
        return list(self._machine.wanted_signals().items())

    def _next_timer(self) -> float | None:
        timer = self._machine.loop.next_timer()
        return timer.when() if timer is not None and timer.op not in self._fired else None

    def _let_time_pass(self) -> None:
        """Several timers may be due by then; they fire in the order they were due."""
        due = self._next_timer()
        assert due is not None
        self._clock = max(self._clock, due + self._rng.choice((0.0, 0.0, 0.3, 2.0)))
        for timer in self._machine.loop.take_due(self._clock):
            if timer.op not in self._fired:
                self._fire(timer, max(self._clock, timer.when()))

    def _answer(self, op: Operation) -> None:
        if (
            op.kind == OperationKind.STEP and self._rng.random() < 0.1
        ):  # kept beside the history: not seen by the flow
            kind = self._rng.choice((EventKind.STEP_RETRIED, EventKind.STEP_WAITED))
            place = wait_of(op.id, "signal:left#1") if kind == EventKind.STEP_WAITED else op.id
            self._record(kind, op=place, name=op.name, digest=op.digest)
        del self._open[op.id]
        arg = op.request.args[0] if op.kind == OperationKind.STEP else op.request.call.args[0]
        name = {"gamma ray": "gamma"}.get(op.name, op.name)
        word = f"{name}/{arg}/{len(self.rows) + len(self._facts)}"
        failed = self._rng.random() < 0.15
        payload = describe(Rejected(word)) if failed else encode(word)
        kind = {
            (OperationKind.STEP, False): EventKind.STEP_COMPLETED,
            (OperationKind.STEP, True): EventKind.STEP_FAILED,
            (OperationKind.CHILD, False): EventKind.CHILD_COMPLETED,
            (OperationKind.CHILD, True): EventKind.CHILD_FAILED,
        }[op.kind, failed]
        self._settle(op, kind, payload)

    def _note(self, kind: str, op: Operation) -> None:
        self._record(kind, op=op.id, name=op.name, digest=op.digest)

    def _settle(self, op: Operation, kind: str, payload: str | None) -> None:
        self._record(kind, op=op.id, name=op.name, digest=op.digest, payload=payload, source=op.source)

    def _ask_to_cancel(self) -> None:
        self._cancelled = True
        self._machine.earlier.retraces = False
        self._record(EventKind.CANCEL_REQUESTED, payload=encode("enough"))

    # -- from facts to what the flow sees --------------------------------------------------------------

    def _event(self, kind: str, **columns: Any) -> Event:
        seq = len(self.rows) + len(self._facts) + 1
        blank = {
            "op": "",
            "name": "",
            "digest": "",
            "payload": None,
            "at": self._clock,
            "source": "",
            "attempt": 0,
        }
        return Event(seq=seq, kind=kind, **{**blank, **columns})

    def _record(self, kind: str, **columns: Any) -> Event:
        event = self._event(kind, **columns)
        self._facts.append(event)
        self.counts[f"event {kind}"] += 1
        if event.op and kind in DELIVERED:
            self._machine.expect(event)
        return event

    def _commit(self) -> None:
        """The facts are durable: the flow learns them one by one."""
        facts, self._facts = self._facts, []
        self.recording.batches.append(len(facts))
        before = len(self.rows)
        self.rows += facts
        machine = self._machine
        for number, event in enumerate(facts, before + 1):
            if event.kind == EventKind.SIGNAL_RECEIVED:
                self._taken[event.name] -= 1
            if event.kind in DELIVERED:
                self._count_left_behind(event)
                machine.deliver(event)
            if machine.new_patches and number < before + len(facts):
                self.counts["patched inside a batch"] += 1
            self._remember(number)

    def _count_left_behind(self, event: Event) -> None:
        machine = self._machine
        if machine.finished:
            self.counts["after the end"] += 1
        elif event.kind == EventKind.TIMER_FIRED:
            self.counts["left behind timer"] += event.op not in machine.loop.armed_ids()
        elif event.op:
            self.counts["left behind operation"] += event.op not in machine.pending
        elif event.kind == EventKind.SIGNAL_RECEIVED:
            self.counts["left behind signal"] += not machine.wanted_signals().get(event.name)

    def _remember(self, number: int) -> None:
        self.recording.states[number] = State.of(self._machine, self._driver.play)


def record(program: Node, seed: str) -> tuple[Recording, Counter[str], list[str]]:
    """Run a program for the first time: its recording, what occurred, and complaints."""
    recording = Recording(program, flow_id=f"proof-{seed}")
    host = LiveHost(recording, random.Random(f"host {seed}"))
    complaints = host.run()
    return recording, host.counts, complaints
