"""One flow in memory: deliver an event, run until quiet, collect what the flow asked for.

The machine is all there is to determinism. It delivers recorded events one at a time, in their recorded order, and
drains the loop between two of them; live it is fed the very same way, with events that have just become durable.
So a flow cannot tell a replay from its first run, and neither can this class, but for `replaying`, which only
silences log lines and decides `patched`. Whether code and history agree is judged in `mismatch.py`; what earlier
attempts of a retried flow came to is kept in `attempts.py`.

It must be driven from a plain callback of the host loop, never from inside a host task: since Python 3.14 a thread
has one current task.
"""

from __future__ import annotations

import contextvars
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, NoReturn

from ergon.core.empty import NO_ENTRIES
from ergon.core.failure import awaitable
from ergon.core.history import DELIVERED, Event, EventKind
from ergon.errors import ErgonError, NotAllowedInFlow
from ergon.replay import backports, generators, mismatch, ordering
from ergon.replay.attempts import NO_ATTEMPTS, EarlierAttempts
from ergon.replay.eviction import evict
from ergon.replay.loop import FlowLoop
from ergon.replay.mailbox import Mailbox
from ergon.replay.operations import Operation, OperationKind, Place, place_text
from ergon.replay.tasks import FlowTask

ordering.install()
backports.install()

NOT_DECODED: Final[Any] = object()
"""In place of an event's value: decode its payload when it is delivered."""


class FlowMachine:
    """A flow's code, its loop and its pending operations."""

    __slots__ = (
        "_ahead",
        "_answer",
        "_entered_at",
        "_entry",
        "_expected",
        "_history",
        "_left_behind",
        "_on_error",
        "_random",
        "_recorded",
        "_replayed",
        "abandoned",
        "attempt",
        "earlier",
        "ended_at",
        "flow_id",
        "loop",
        "mailboxes",
        "muted",
        "new_patches",
        "patches",
        "pending",
        "ran_before",
        "replaying",
        "requested",
        "root",
        "stopped",
    )

    def __init__(
        self,
        *,
        flow_id: str,
        started_at: float,
        history: Sequence[Event],
        entry: Callable[[], Coroutine[Any, Any, Any]],
        answer: Callable[[Operation, Event], Any],
        on_error: Callable[[str, dict[str, Any]], None],
    ) -> None:
        """`answer` turns a recorded event into the operation's result, or raises the recorded error.

        `on_error` is told, by flow id, what asyncio tells an exception handler.
        """
        self.flow_id = flow_id
        self.loop = FlowLoop(flow_id=flow_id, now=started_at, machine=self)  # type: ignore[abstract]
        self.pending: dict[str, Operation] = {}
        self.mailboxes: dict[str, Mailbox] = NO_ENTRIES
        self.stopped: ErgonError | None = None
        """Why the flow cannot go on with this code; it is to be parked."""
        self.replaying = True
        self.ran_before = False
        """An earlier run came as far as the history goes: what it logged up to there is not logged again."""
        self.muted = False
        self.ended_at: int | None = None
        """The event with which the flow ended, when that was in a replay."""
        self.root: FlowTask[Any] | None = None
        self.patches: dict[str, bool] = NO_ENTRIES
        self.new_patches: tuple[tuple[str, str], ...] = ()
        """Name and place of each that nobody has recorded yet."""
        self.earlier = NO_ATTEMPTS
        self._entry = entry
        self._answer = answer
        self._on_error = on_error
        self._entered_at: Place | None = None
        self.requested: list[Operation] | None = None
        """Operations asked for and not begun. None, as empty lists would be things to collect in each flow."""
        self.abandoned: list[Operation] | None = None
        self._history: Sequence[Event] = history
        if history:
            self.patches = {event.name: True for event in history if event.kind == EventKind.PATCHED}
            self.earlier = EarlierAttempts()
            self._history = self.earlier.split_off(history)
            # The new attempt's time begins here: from the first start on, its time limits would be over at once.
            self.loop.now = max(self.loop.now, self.earlier.present_began or 0.0)
        self.attempt = self.earlier.count + 1
        self._expected: dict[str, Event] = NO_ENTRIES
        self._left_behind: dict[str, None] = NO_ENTRIES
        self._replayed = self._recorded = history[-1].seq if history else 0
        self._ahead = _NOTHING_AHEAD
        """What the history still holds while it is replayed."""
        self._random: random.Random | None = None

    # -- driven by the executor ------------------------------------------------------------------------

    def revive(self) -> None:
        """Start the flow and deliver its whole history. Call once, from a host callback."""
        ahead = self._ahead
        history, self._history = self._history, ()
        if history:
            self._ahead = ahead = deque([event for event in history if event.kind in DELIVERED])
            self._expected = {event.op: event for event in ahead if event.op}
        if ahead:
            self._replayed = history[0].seq - 1
        loop = self.loop
        generators.stand_in_front()
        host = loop.enter()
        try:
            self.replaying = bool(ahead) or self.ran_before
            context = contextvars.Context()
            self.root = root = context.run(self._start_root, context)
            loop.run_until_quiet()
            while ahead and self.stopped is None:
                if root.done():
                    self._check_left_over()
                    return
                event = ahead.popleft()
                self._replayed = event.seq
                if not ahead:
                    self.replaying = self.ran_before
                self._deliver(event, NOT_DECODED)
                loop.run_until_quiet()
        except NotAllowedInFlow as error:  # it spins
            self.stop(error)
        finally:
            self.replaying = False
            if self.finished:
                self.ended_at = self._replayed
            self._replayed = self._recorded
            loop.leave(host)

    def deliver(self, event: Event, value: Any = NOT_DECODED) -> None:
        """Let the flow see one durable event, and run it until quiet. `value` saves decoding the payload again."""
        self.deliver_all(((event, value, None),))

    def deliver_all(self, facts: Iterable[tuple[Event, Any, Any]]) -> None:
        """`deliver` for several events (each with its value and something of the caller's), in one turn."""
        loop, root, pending = self.loop, self.root, self.pending
        assert root is not None, "revive first"
        host = loop.enter()
        try:
            for event, value, _ in facts:
                kind = event.kind
                if kind not in DELIVERED:
                    continue
                if self.stopped is not None or root.done():
                    return
                op = pending.get(event.op) if kind == EventKind.STEP_COMPLETED else None
                if op is None or value is NOT_DECODED or op.done():
                    self._deliver(event, value)
                else:  # the same for a result at hand, which may be one of a thousand that were gathered
                    del pending[event.op]
                    if self._expected:
                        self._expected.pop(event.op, None)
                    if event.at > loop.now:  # noqa: PLR1730  # quicker than max()
                        loop.now = event.at
                    op.set_result(value)
                loop.run_until_quiet()
        except NotAllowedInFlow as error:  # it spins
            self.stop(error)
        finally:
            loop.leave(host)

    def answer_step(self, event: Event, value: Any) -> bool:
        """`deliver` the result of a step that is at hand. True when all that came of it is in `requested`."""
        loop, root = self.loop, self.root
        assert root is not None, "revive first"
        op = self.pending.get(event.op)
        if op is None or op.done() or root.done() or self.stopped is not None:
            self.deliver(event, value)
            return False
        del self.pending[event.op]
        if self._expected:
            self._expected.pop(event.op, None)
        host = loop.enter()
        try:
            if event.at > loop.now:  # noqa: PLR1730  # quicker than max()
                loop.now = event.at
            op.set_result(value)
            loop.run_until_quiet()
        except NotAllowedInFlow as error:  # it spins
            self.stop(error)
        finally:
            loop.leave(host)
        unusual = self.abandoned or self.new_patches or self.mailboxes or loop.timers or self.stopped
        return not (unusual or root.done())

    def expect(self, event: Event) -> None:
        """Announce an event that is on its way into the log, so that its operation may be left behind meanwhile."""
        if event.op:
            if not self._expected:
                self._expected = {}
            self._expected[event.op] = event

    def has_answer(self, op: Operation) -> bool:
        """True when the event that answers `op` is on its way."""
        return op.id in self._expected

    def take_requested(self) -> list[Operation]:
        """Operations asked for since the last call and still wanted, oldest first."""
        requested, self.requested = self.requested, None
        return [op for op in requested if op.id in self.pending] if requested else []

    def take_abandoned(self) -> list[Operation]:
        """Operations the flow stopped waiting for since the last call."""
        abandoned, self.abandoned = self.abandoned, None
        return abandoned or []

    def stop(self, error: ErgonError) -> None:
        """The flow cannot go on with this code: run nothing more of it. The first reason stands."""
        if self.stopped is None:
            self.stopped = error
        self.muted = True
        self.loop.halt()

    @property
    def finished(self) -> bool:
        """True when the flow's own coroutine has ended."""
        return self.root is not None and self.root.done()

    def wanted_signals(self) -> dict[str, int]:
        """For each signal name that somebody waits for: how many values are wanted."""
        return {name: count for name, box in self.mailboxes.items() if (count := box.wanted())}

    def dismiss(self) -> None:
        """Take the flow out of memory: end its tasks with every command muted. Call from a host callback."""
        self.muted = True
        host = self.loop.enter()
        try:
            evict(self.loop)
        finally:
            self.pending.clear()
            self.requested = None
            self.loop.leave(host)
        if not self.loop.tasks:
            self.close()

    def close(self) -> None:
        """No code of the flow is left to run: forget who drove it, and take the loop's way back here."""
        self.muted = True
        self._entry = self._answer = self._on_error = _closed
        self.pending.clear()
        self.requested = None
        self.loop.detach()

    # -- asked by flow code, through `ergon.flows` ------------------------------------------------------

    def ask(  # noqa: PLR0917  # made once per step
        self, kind: str, name: str, digest: str, request: Any, place: Place | None, op_id: str | None = None
    ) -> Operation:
        """Ask for a step or child flow: the future of its answer. `op_id`: not the next id of the running task."""
        loop = self.loop
        if op_id is None:
            scope = loop.current_scope()
            scope.ergon_operations = number = scope.ergon_operations + 1
            op_id = f"{scope.ergon_path}:{number}"
        op = Operation(loop=loop)
        op.machine = self
        op.id = op_id
        op.kind = kind
        op.name = name
        op.digest = digest
        op.place = place
        op.request = request
        op.asked_at = loop.now
        op.announced = False
        if self.muted:
            return op
        if self.attempt > 1:
            self.earlier.recognise(op)
        expected = self._expected.get(op_id) if self._expected else None
        if expected is None:
            if self.requested is None:
                self.requested = [op]
            else:
                self.requested.append(op)
        elif not mismatch.fits(op, expected):
            self.stop(mismatch.asked_otherwise(op, expected))
            return op
        self.pending[op_id] = op
        return op

    def abandon(self, op: Operation) -> None:
        """The flow stopped waiting for `op`."""
        if self.muted or self.pending.pop(op.id, None) is None:
            return
        if op.announced or op.id in self._expected:
            self._leave_behind(op.id)
        op.left_at = self._replayed
        if self.abandoned is None:
            self.abandoned = []
        self.abandoned.append(op)

    async def wait_signal(self, name: str, place: Place | None) -> str:
        """The next value of a signal, as JSON."""
        box = self.mailboxes.get(name)
        if box is None:
            if not self.mailboxes:
                self.mailboxes = {}
            box = self.mailboxes[name] = Mailbox(name)
        op = self.loop.current_scope().next_operation()
        return await box.take(self.loop, op=op, source=place_text(place))

    def patched(self, name: str, place: Place | None) -> bool:
        """Whether this flow takes the new branch at patch `name`; the first answer stands.

        Not when the history shows that the flow has been past this point with code that had no patch here.
        """
        known = self.patches.get(name)
        if known is None:
            ahead = self._ahead
            been_past = bool(ahead) and mismatch.been_past(ahead, self._asked(), self.mailboxes)
            known = not been_past
            self.patches = {**self.patches, name: known}
            if known and not self.muted:
                self.new_patches = (*self.new_patches, (name, place_text(place)))
        return known

    def random(self) -> random.Random:
        """This flow's own generator, seeded by its id."""
        if self._random is None:
            import hashlib  # seldom needed, and long to import

            seed = hashlib.sha256(f"ergon:{self.flow_id}".encode()).digest()
            self._random = random.Random(int.from_bytes(seed, "big"))  # repeatable on purpose
        return self._random

    # -- told by the loop -------------------------------------------------------------------------------

    def report(self, context: dict[str, Any]) -> None:
        """A callback or a task of the flow raised, and nobody else will say so."""
        if not self.muted:  # what a flow says while it is taken out of memory is not news
            self._on_error(self.flow_id, context)

    def timer_cancelled(self, op: str) -> None:
        """A timer was cancelled while it was armed."""
        if op in self._expected:
            self._leave_behind(op)

    # -- inside ----------------------------------------------------------------------------------------

    def _leave_behind(self, op_id: str) -> None:
        if not self._left_behind:
            self._left_behind = {}
        self._left_behind[op_id] = None

    def _start_root(self, context: contextvars.Context) -> FlowTask[Any]:
        entry, self._entry = self._entry, _closed
        coroutine = entry()
        code = getattr(coroutine, "cr_code", None)
        self._entered_at = (code, 0) if code is not None else None
        return self.loop.spawn(coroutine, name="flow", context=context, path="0")

    def _deliver(self, event: Event, value: Any) -> None:
        loop = self.loop
        if event.at > loop.now:  # noqa: PLR1730  # quicker than max()
            loop.now = event.at
        if self._expected:
            self._expected.pop(event.op, None)
        kind = event.kind
        if kind in _ANSWERS:
            op = self.pending.pop(event.op, None)
            if op is None:
                self._unasked(event)
            elif not op.done():
                self._settle(op, event, value)
        elif kind == EventKind.TIMER_FIRED:
            if not loop.fire(event.op):
                self._unasked(event)
        elif kind == EventKind.SIGNAL_RECEIVED:
            self._deliver_signal(event)
        elif kind == EventKind.CANCEL_REQUESTED:
            assert self.root is not None
            self.root.cancel(event.name or None)

    def _deliver_signal(self, event: Event) -> None:
        box = self.mailboxes.get(event.name)
        assert event.payload is not None
        if box is None or not box.arrive(event.payload):
            self._unasked(event)

    def _settle(self, op: Operation, event: Event, value: Any) -> None:
        if value is NOT_DECODED:
            try:
                value = self._answer(op, event)
            except Exception as error:  # noqa: BLE001  # the recorded error, or one that says why it cannot be decoded
                self._fail(op, error.with_traceback(None))  # which holds this frame, and by it the flow
                return
        elif isinstance(value, BaseException) and event.kind in _FAILURES:
            self._fail(op, value)
            return
        op.set_result(value)

    def _fail(self, op: Operation, error: BaseException) -> None:
        op.set_exception(awaitable(error))  # an older Ergon recorded what no future takes
        if op.kind == OperationKind.CHILD and op.request.detached:
            op.exception()  # nobody need ask how it went: no complaint that it was never retrieved

    def _unasked(self, event: Event) -> None:
        """An event whose operation the flow does not wait for: left behind, or never asked for."""
        if event.op in self._left_behind:
            del self._left_behind[event.op]
            return
        waits = mismatch.waits_text(
            self.pending.values(), self.loop.armed(), self.mailboxes.values(), self._entered_at
        )
        self.stop(mismatch.never_asked(event, waits))

    def _check_left_over(self) -> None:
        """The flow ended before its history did: fine for what shared the last commit, wrong for the rest."""
        event = mismatch.first_unasked(self._ahead, self._asked())
        if event is not None:
            self.stop(mismatch.ended_early(event, self._entered_at))

    def _asked(self) -> set[str]:
        """The ids of all that the flow has asked for and the history has not answered yet."""
        return {*self.pending, *self._left_behind, *self.loop.armed_ids()}


def _closed(*_: object) -> NoReturn:
    raise AssertionError("the flow has left memory")


_NOTHING_AHEAD: Final[deque[Event]] = deque()
"""Of all flows without a history. Events are only ever taken from what lies ahead."""

_ANSWERS: Final = frozenset(
    {EventKind.STEP_COMPLETED, EventKind.STEP_FAILED, EventKind.CHILD_COMPLETED, EventKind.CHILD_FAILED}
)
_FAILURES: Final = frozenset({EventKind.STEP_FAILED, EventKind.CHILD_FAILED})
