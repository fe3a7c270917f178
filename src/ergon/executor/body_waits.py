"""The durable waits inside one step body: for a timer, a signal, a child flow, and those of its ladder.

Each wait has a key, such as `signal:approval#1`. Its answer is a STEP_WAITED event under that key, so a body that runs
again from its start, in this process or another, gets it at once. A crash before that event is durable leaves the wait
open: the message is still unread, the timer's clock not started. A signal that is on its way to a wait that ends
meanwhile is put back, see `inbox.py`.

Tasks of a body may come to their waits in another order each time it runs, so a wait is known by what it waits for,
and only equal ones are counted: a signal by its name; a child by its name and its id, or else its input; a timer by its
name and duration. A duration may be another one each time, too: a timer that fits none on record is the first of its
name that has not been asked for again, and counts from when that one began. A child that fits none is another child.

After a failed attempt the next one keeps signals and completed children, and waits for timers and failed children anew.

While a body waits it is `idle`, and its flow may leave memory if `idleness.py` finds no other work in it, and no time
limit. That of `@step(timeout=)` is recorded then under the key `limit:#1`, and the attempt goes on with what is left of
it. The attempts live in `body.py`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ergon.core.codec import decoder_for, digest, encode
from ergon.core.commit import Received
from ergon.core.history import Event, EventKind, split_wait, wait_of
from ergon.executor.families import child_outcome, flow_id_of, has_completed
from ergon.flows.children import child_id
from ergon.replay.operations import NOT_THE_USERS, Operation, place_text

if TYPE_CHECKING:
    from ergon.executor.work import Work


class BodyWaits:
    """What one step body waits for, and has waited for."""

    def __init__(self, work: Work, op: Operation, attempt: int) -> None:
        self.idle = False
        """True while the body waits; it may compute in another branch, which `StepBody.computes` looks into."""
        self.children: set[str] = set()
        """The operations of child flows that are to follow the body when it is cancelled."""
        self._work = work
        self._op = op
        self._attempt = attempt
        self._open: Sequence[_Open] = ()
        self._answered: frozenset[asyncio.Future[Event]] = frozenset()
        self._recorded: dict[str, Event] = {}
        self._taken: dict[str, tuple[int, Received]] = {}
        """By key, signals on their way to the body, and the number of the event that accounts for each."""
        self._over = False
        self._counts: dict[str, int] = {}
        self._timers: dict[str, list[_Timer]] = {}
        """Those on record, by name."""
        self._unasked: dict[str, list[_Timer]] = {}
        """Of these the ones that the body, since it runs again, has not asked for."""
        self._failed = 0
        self._unheard: dict[str, int] = {}
        """By key, signals that an earlier run took for the body, and the number of the event of each: that run may
        have died before the body had them, and this one has not asked yet."""
        self._has_heard = False
        """It has been given a signal, of which there is no note yet."""

    def begin(self, attempt: int) -> None:
        """The body runs from its start: its first waits are the first ones again."""
        self._attempt = attempt
        self._counts = {f"timer:{name}": len(timers) for name, timers in self._timers.items()}
        self._unasked = {name: list(timers) for name, timers in self._timers.items()}

    def remember(self, event: Event) -> None:
        """A wait was answered; a further attempt finds it."""
        key = split_wait(event.op)[1]
        if key == _HEARD:
            self._unheard.clear()
            return
        self.children.discard(wait_of(self._op.call_id, key))
        self._recorded[key] = event
        if (
            event.seq and event.attempt and key.startswith("signal:")
        ):  # of an earlier run, and of this attempt of the flow
            self._unheard[key] = event.seq
        kind, _, name = key.rpartition("#")[0].partition(":")
        if kind == "timer" and event.attempt > self._failed:
            self._timers.setdefault(name, []).append(_Timer(*_timer.decode(event.payload or "")))

    def failed(self, attempt: int) -> None:
        """This attempt of the body failed: the next begins its timers anew, and children that failed."""
        self._failed = attempt
        self._timers.clear()
        self._unheard.clear()  # it was alive to fail

    def _standing(self, key: str) -> Event | None:
        """The recorded answer of a wait, if it still counts.

        A signal is taken once, and what a child returned is kept. A child's failure counts for the attempt that met it:
        it would fail every other one alike.
        """
        event = self._recorded.get(key)
        if event is None or event.attempt > self._failed or key.startswith("signal:"):
            return event
        return event if key.startswith("child:") and has_completed(event.payload) else None

    # -- the limit of the attempt ----------------------------------------------------------------------------

    def ends_at(self, attempt: int) -> float | None:
        """When this attempt ends at the latest, if an earlier run of it was let go."""
        event = self._recorded.get(_LIMIT)
        return _time.decode(event.payload or "") if event is not None and event.attempt == attempt else None

    def note_end(self, attempt: int, at: float) -> None:
        """The attempt is let go where it waits: remember when it ends. Lands with what lets it go."""
        if self.ends_at(attempt) is None:
            kind = EventKind.STEP_WAITED
            self._work.note(kind, self._op, attempt, wait=_LIMIT, payload=encode(at), flush=False)

    def note_heard(self) -> None:
        """The flow is let go: remember that the body has had all its signals, as it need not if this process died."""
        if self._has_heard and not self._answered:
            self._has_heard = False
            self._work.note(EventKind.STEP_WAITED, self._op, self._attempt, wait=_HEARD, flush=False)

    # -- asked by the body -------------------------------------------------------------------------------

    async def wait_timer(self, seconds: float, name: str) -> None:
        """Wait; the due time is recorded once, so that running the body again does not wait from the start."""
        due = self._due_again(seconds, name)
        if due is None:
            due = self._work.host.now() + seconds
            await self._record_due(self._key("timer", name), encode(_Timer(due, seconds)))
        wait = self.open("timer", name or self._op.name, due=due)
        try:
            await self._work.host.sleep_until(due)
        finally:
            self.close(wait)

    def _due_again(self, seconds: float, name: str) -> float | None:
        """When a timer is due that was recorded by an earlier run of the body; None when this is another."""
        unasked = self._unasked.get(name)
        if not unasked:
            return None
        place = next((place for place, timer in enumerate(unasked) if timer.seconds == seconds), None)
        if place is not None:
            return unasked.pop(place).due
        due, recorded = unasked.pop(0)
        return due - recorded + seconds

    async def wait_signal(self, name: str) -> str:
        """The next value of a signal; recorded together with its consumption."""
        key = self._key("signal", name)
        recorded = self._recorded.get(key)
        if recorded is None:
            if self._over:
                raise asyncio.CancelledError("the step is over: no signal comes to it any more")
            arrived = self._work.host.loop.create_future()
            # A signal that came before is taken right here: only without one may the flow leave memory.
            self._work.want_signal(name, StepWait(self, key, arrived))
            wait = self.open("signal", name, until=arrived)
            try:
                recorded = await arrived
                if self._taken.pop(key, None) is None:
                    raise asyncio.CancelledError("the step is over: its signal went back")
            finally:
                self.close(wait)
                self._work.unwant(arrived)
                if self._put_back(key):
                    self._work.advance()
        self._unheard.pop(key, None)
        self._has_heard = True
        assert recorded.payload is not None
        return recorded.payload

    def start_child(self, request: Any) -> tuple[str, Callable[[], Coroutine[Any, Any, Any]]]:
        """Start a child flow whose outcome is recorded under this step; its id, and how to wait for it."""
        which = request.id if request.id is not None else digest((), request.call.named())
        key = first = self._key("child", f"{request.call.flow.name}:{which}")
        recorded = self._standing(key)
        successor = 1
        while recorded is None and key in self._recorded and request.id is None:
            successor += 1
            key = f"{first}.{successor}"
            recorded = self._standing(key)
        if request.id is not None:  # there is but one flow of that id
            recorded = self._recorded.get(key)
        arrived: asyncio.Future[Event] = self._work.host.loop.create_future()
        operation = wait_of(self._op.call_id, key)
        flow_id = request.id or child_id(self._work.flow_id, operation, self._work.abandoned_before(self._op))
        if recorded is not None:
            flow_id = flow_id_of(recorded.payload) or flow_id
            arrived.set_result(recorded)
        else:
            if self._over:
                raise asyncio.CancelledError("the step is over: it starts no child any more")
            if not request.detached:
                self.children.add(operation)
            request = request._replace(flow_id=flow_id)
            self._work.start_child(request, operation, StepWait(self, key, arrived))

        async def wait() -> Any:
            waiting = self.open("child", request.call.flow.name, until=arrived)
            try:
                event = await asyncio.shield(arrived)
            finally:
                self.close(waiting)
            return child_outcome(request, event.payload or "null")

        return flow_id, wait

    # -- answers -----------------------------------------------------------------------------------------

    def answer(self, wait: StepWait, payload: str | None) -> None:
        """Record what a message brought; the body gets it when it is durable."""
        key, arrived = wait.key, wait.arrived
        if key.startswith("child:") and not self._is_open():
            # The step has ended, or was given up together with the child: not for a further attempt of the flow.
            if not arrived.done():
                arrived.set_result(self._event(key, payload))
            return

        def durable() -> None:
            event = self._event(key, payload)
            self.remember(event)
            if not arrived.done():
                self._answer_open(arrived)
                arrived.set_result(event)

        # Not flushed yet: the message's consumption follows and must land in the same commit.
        self._record(key, payload, after=durable, flush=False)

    def take(self, wait: StepWait, message: Received) -> None:
        """Record a signal; the body gets it when it is durable, unless it waits no more."""
        key, arrived = wait.key, wait.arrived

        def durable() -> None:
            if key in self._taken and not arrived.done():
                event = self._event(key, message.payload)
                self.remember(event)
                self._answer_open(arrived)
                arrived.set_result(event)

        self._taken[key] = self._record(key, message.payload, after=durable, flush=False), message

    def end(self) -> None:
        """The step is over, or the flow waits for it no more: the body receives nothing from now on."""
        self._over = True
        for wait in self._open:
            if wait.until is not None:
                self._work.unwant(wait.until)
        for key in list(self._taken):
            self._put_back(key)
        for key, seq in self._unheard.items():
            self._recorded.pop(key, None)
            self._work.return_to_log(self._op, key, seq)
        self._unheard.clear()

    def surely_heard(self) -> None:
        """Whatever an earlier run took for the body has reached it: the step happened."""
        self._unheard.clear()

    def _put_back(self, key: str) -> bool:
        taken = self._taken.pop(key, None)
        if taken is None:
            return False
        self._recorded.pop(key, None)
        return self._work.put_back(self._op, key, *taken)

    async def _record_due(self, key: str, payload: str) -> None:
        durable = self._work.host.loop.create_future()

        def landed() -> None:
            self.remember(self._event(key, payload))
            resolve(durable)

        self._record(key, payload, after=landed)
        await durable

    def _record(self, key: str, payload: str | None, *, after: Callable[[], None], flush: bool = True) -> int:
        return self._work.note(
            EventKind.STEP_WAITED,
            self._op,
            self._attempt,
            wait=key,
            payload=payload,
            after=after,
            flush=flush,
        )

    def _event(self, key: str, payload: str | None) -> Event:
        op = wait_of(self._op.id, key)
        return Event(0, EventKind.STEP_WAITED, op, self._op.name, "", payload, 0.0, "", self._attempt)

    def _key(self, kind: str, name: str) -> str:
        """Names the n-th wait of this kind and name; one with an answer has the same when the body runs again."""
        base = f"{kind}:{name}"
        self._counts[base] = number = self._counts.get(base, 0) + 1
        return f"{base}#{number}"

    # -- idle ----------------------------------------------------------------------------------------------

    def open(
        self, kind: str, name: str, *, due: float | None = None, until: asyncio.Future[Event] | None = None
    ) -> _Open:
        """The body waits from now on, until it closes what this returns."""
        told: dict[str, Any] = {"kind": kind, "name": name, "op": self._op.id, "step": self._op.name}
        told["since"] = self._work.host.now()
        told["source"] = _line_of_body() or self._op.source
        if due is not None:
            told["due"] = due
        wait = _Open(told, until, asyncio.current_task())
        if until is None or not until.done():
            self._open = [*self._open, wait]
            self._judge()
            self._work.may_be_idle()
        return wait

    def close(self, wait: _Open) -> None:
        """The body goes on, or waits no longer."""
        self._open = [each for each in self._open if each is not wait]
        if wait.until is not None:
            self._answered -= {wait.until}
        self._judge()
        if self.idle:  # another branch of the body still waits: look again when this one has had its turn
            self._work.host.loop.call_soon(self._work.may_be_idle)

    def _answer_open(self, until: asyncio.Future[Event]) -> None:
        """A wait has its answer: the body is about to go on, though its task has not run yet."""
        if any(wait.until is until for wait in self._open):
            self._answered |= {until}
            self._judge()

    def _judge(self) -> None:
        self.idle = bool(self._open) and not self._answered
        if self._is_open():  # else the flow has abandoned it, and it only cleans up
            self._work.not_idle()

    def _is_open(self) -> bool:
        body = self._work.bodies.get(self._op.id)
        return body is not None and body.waits is self

    def tasks(self) -> list[asyncio.Task[Any] | None]:
        """Which wait."""
        return [wait.task for wait in self._open]

    @property
    def due(self) -> float | None:
        """When the first of the waits is over by itself, by the log's clock."""
        return min((wait.told["due"] for wait in self._open if "due" in wait.told), default=None)

    def describe(self) -> Sequence[dict[str, Any]]:
        """What the body waits for, for whoever asks why the flow does not move; empty when it does not wait."""
        return [wait.told for wait in self._open]


class StepWait(NamedTuple):
    """A step body that waits for a message."""

    waits: BodyWaits
    key: str
    """The wait's name in the history, such as `signal:approval#1`."""
    arrived: asyncio.Future[Event]

    def answer(self, payload: str | None) -> None:
        """Record the answer."""
        self.waits.answer(self, payload)

    def take(self, message: Received) -> None:
        """Record a signal."""
        self.waits.take(self, message)


class _Timer(NamedTuple):
    """A timer on record. Kept as JSON: `[due, seconds]`."""

    due: float
    seconds: float


_timer = decoder_for(tuple[float, float])
_time = decoder_for(float)
_HEARD: Final = "heard:#1"
"""The key under which is recorded that the body has had all signals so far."""
_LIMIT: Final = "limit:#1"
"""The key under which is recorded when the attempt ends. An answer to nothing: the body does not ask for it."""


class _Open(NamedTuple):
    """A wait that is not over."""

    told: dict[str, Any]
    """For whoever asks why the flow does not move."""
    until: asyncio.Future[Event] | None
    task: asyncio.Task[Any] | None
    """Which waits."""


def _line_of_body() -> str:
    """The line of the body that waits; empty where a task of its own does, or the ladder around the body."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if not module.startswith(NOT_THE_USERS):
            return place_text((frame.f_code, frame.f_lasti))
        if module in ("ergon.executor.runner", "ergon.executor.body", "asyncio.events"):
            break
        frame = frame.f_back
    return ""


def resolve(future: asyncio.Future[None]) -> None:
    """Let go who waits for the future, if anybody still does."""
    if not future.done():
        future.set_result(None)
