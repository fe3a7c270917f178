"""What an attempt of a flow may take from those before it, judged by the rows alone.

`ergon.replay.attempts` decides while the flow runs; here the finished history is read by other means, so that a rule
that is wrong there is not believed here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ergon.core.history import Event, EventKind
from tests.replay_proof.host import AT_MOST_ONCE, Recording

COMPLETED: Final = frozenset({EventKind.STEP_COMPLETED, EventKind.CHILD_COMPLETED})
OF_CALLS: Final = COMPLETED | {EventKind.STEP_STARTED, EventKind.STEP_FAILED}
REPEATS: Final = frozenset({EventKind.PATCHED})
"""Rows that do nothing outside the flow."""


class Call(NamedTuple):
    """Which call a row is of."""

    id: str
    name: str
    digest: str

    @classmethod
    def of(cls, row: Event) -> Call:
        digest, _, id = row.digest.partition("@")
        return cls(id or row.op, row.name, digest)


def faults(recording: Recording) -> Iterator[str]:
    """All that is wrong with what later attempts took from earlier ones."""
    attempts = list(split(recording.rows))
    yield from _calls(attempts)
    yield from _completed(attempts, recording.asked)
    yield from _started(attempts, recording.asked)
    yield from _timers(attempts, recording.due)


def split(rows: Sequence[Event]) -> Iterator[list[Event]]:
    """The rows of each attempt."""
    attempt: list[Event] = []
    for row in rows:
        attempt.append(row)
        if row.kind == EventKind.FLOW_RETRIED:
            yield attempt
            attempt = []
    yield attempt


def _calls(attempts: list[list[Event]]) -> Iterator[str]:
    """An id, and so an idempotency key, is of one call for ever, and of one operation in each attempt."""
    known: dict[str, Call] = {}
    for rows in attempts:
        place: dict[str, str] = {}
        for row in rows:
            if row.kind in OF_CALLS:
                call = Call.of(row)
                if known.setdefault(call.id, call) != call:
                    yield f"row {row.seq}: id {call.id} was that of {known[call.id]}, now of {call}"
                if place.setdefault(call.id, row.op) != row.op:
                    yield f"row {row.seq}: {call} is both {place[call.id]} and {row.op}"


def _completed(attempts: list[list[Event]], asked: list[Counter[str]]) -> Iterator[str]:
    """A call that completed has that result for ever, and is not made again where it stood."""
    results: dict[str, str | None] = {}
    last_place: dict[str, tuple[Call, str | None]] = {}
    for rows, calls in zip(attempts, asked, strict=True):
        done_before = Counter(f"{payload}".strip('"').rpartition("/")[0] for payload in results.values())
        given = {row.payload for row in rows if row.kind in COMPLETED}
        for row in rows:
            if row.kind not in COMPLETED:
                continue
            call = Call.of(row)
            if results.setdefault(call.id, row.payload) != row.payload:
                yield f"row {row.seq}: {call} came to {results[call.id]}, and now to {row.payload}"
            stood, result = last_place.get(row.op, (call, row.payload))
            what = f"{row.payload}".strip('"').rpartition("/")[0]
            same = (stood.name, stood.digest) == (call.name, call.digest)
            if same and result not in given and calls[what] <= done_before[what]:
                yield f"row {row.seq}: {call} was made again, though it had come to {result} there"
        for row in rows:
            if row.kind in COMPLETED:
                last_place[row.op] = Call.of(row), row.payload


def _started(attempts: list[list[Event]], asked: list[Counter[str]]) -> Iterator[str]:
    """An at-most-once step is never started twice: never more often than one attempt called it."""
    starts: Counter[str] = Counter()
    by_arguments: defaultdict[str, set[str]] = defaultdict(set)
    for rows in attempts:
        for row in rows:
            if row.kind == EventKind.STEP_STARTED:
                starts[Call.of(row).id] += 1
                by_arguments[Call.of(row).digest].add(Call.of(row).id)
    yield from (f"{id} was started {count} times" for id, count in starts.items() if count > 1)
    most = sorted((max(calls[f"{AT_MOST_ONCE}/{arg}"] for calls in asked) for arg in range(3)), reverse=True)
    many = sorted((len(ids) for ids in by_arguments.values()), reverse=True)
    if any(starts > calls for starts, calls in zip(many, most, strict=False)):
        yield f"{AT_MOST_ONCE} was started for {many} calls, where the attempts made {most} at most"


def _timers(attempts: list[list[Event]], due: dict[int, float]) -> Iterator[str]:
    """A timer is never early, but for a sleep that was slept, in an attempt that has done nothing else yet."""
    slept: set[tuple[str, str, str]] = set()
    repeated: set[tuple[str, str, str | None]] = set()
    for rows in attempts:
        retraces = True
        for row in rows:
            if row.kind == EventKind.TIMER_FIRED and row.at < due[row.seq]:
                if not row.digest or (row.op, row.name, row.digest) not in slept:
                    yield f"row {row.seq}: timer {row.op} was due {due[row.seq] - row.at:g} s later"
                elif not retraces:
                    yield f"row {row.seq}: timer {row.op} was not slept, though the attempt did something new"
            elif (row.kind, row.name, row.payload) not in repeated and row.kind not in REPEATS:
                retraces = False
        slept |= {(row.op, row.name, row.digest) for row in rows if row.kind == EventKind.TIMER_FIRED}
        repeated |= {
            (row.kind, row.name, row.payload)
            for row in rows
            if row.kind in COMPLETED or row.kind == EventKind.SIGNAL_RECEIVED
        }
