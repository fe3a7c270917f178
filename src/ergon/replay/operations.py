"""What a flow asks for: one operation is one request whose answer becomes an event."""

from __future__ import annotations

import asyncio
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

from ergon.core.history import Event, EventKind

if TYPE_CHECKING:
    from ergon.replay.machine import FlowMachine


class OperationKind:
    """Which kind of answer an operation waits for."""

    STEP: Final = "step"
    CHILD: Final = "child"


EXPECTED_KIND: Final = {
    EventKind.STEP_COMPLETED: OperationKind.STEP,
    EventKind.STEP_FAILED: OperationKind.STEP,
    EventKind.CHILD_COMPLETED: OperationKind.CHILD,
    EventKind.CHILD_FAILED: OperationKind.CHILD,
    EventKind.TIMER_FIRED: "timer",
    EventKind.SIGNAL_RECEIVED: "signal",
    EventKind.CANCEL_REQUESTED: "cancel",
}


Place = tuple[CodeType, int]
"""A place in source code: a code object and an instruction offset. Cheap to take; `place_text` makes it readable."""

_texts: dict[int, dict[int, str]] = {}
"""By the code object's address (its hash is slow) and the instruction."""
_kept: list[CodeType] = []
"""The code objects of `_texts`, so that no other can get the address."""


def place_text(place: Place | None) -> str:
    """`file.py:42`, or empty when there is no place."""
    if place is None:
        return ""
    code, instruction = place
    texts = _texts.get(id(code))
    if texts is None:
        texts = _texts[id(code)] = {}
        _kept.append(code)
    text = texts.get(instruction)
    if text is None:
        text = texts[instruction] = _describe(code, instruction)
    return text


def _describe(code: CodeType, instruction: int) -> str:
    line: int | None = code.co_firstlineno
    for start, end, number in code.co_lines():
        if start <= instruction < end and number is not None:
            line = number
            break
    file = code.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{file}:{line}"


NOT_THE_USERS: Final = ("asyncio.", "ergon.")
"""Modules whose lines tell a user nothing."""


def waiting_place(task: asyncio.Task[Any]) -> str:
    """Where a suspended task waits: the innermost line that is neither asyncio's nor Ergon's."""
    places = waiting_places(task)
    return place_text(places[-1]) if places else ""


def waiting_places(task: asyncio.Task[Any]) -> list[Place]:
    """Who awaits whom in a suspended task, outermost first, without asyncio and Ergon."""
    places: list[Place] = []
    awaiting: Any = task.get_coro()
    while awaiting is not None:
        frame = getattr(awaiting, "cr_frame", None) or getattr(awaiting, "gi_frame", None)
        if frame is None:
            break
        if not frame.f_globals.get("__name__", "").startswith(NOT_THE_USERS):
            places.append((frame.f_code, frame.f_lasti))
        awaiting = getattr(awaiting, "cr_await", None) or getattr(awaiting, "gi_yieldfrom", None)
    return places


class Operation(asyncio.Future[Any]):
    """A step or a child flow that the flow asked for: the future of its answer.

    A future of its own class, so that a task that is cancelled while it awaits this one tells the machine at once.
    """

    __slots__ = (
        "_log_destroy_pending",  # `gather` sets it on what it takes for a task of its own
        "_number",
        "announced",
        "asked_at",
        "digest",
        "id",
        "kind",
        "left_at",
        "machine",
        "name",
        "place",
        "request",
    )

    # Set by `FlowMachine.ask` one by one: a constructor in Python would cost as much as the rest of the request.
    _number: int
    announced: bool
    """Its answer is on the way into the log."""
    asked_at: float
    """In flow time."""
    digest: str
    id: str
    kind: str
    left_at: int
    """The event after which the flow stopped waiting for it, when that was in a replay; else all of the history."""
    machine: FlowMachine
    name: str
    place: Place | None
    request: Any
    """What to do; the executor knows its type."""

    def __hash__(self) -> int:
        """By number, as `FlowFuture`: `gather` is hashed by its first child."""
        try:
            return self._number
        except AttributeError:
            self._number = number = self.machine.loop.next_future_number()
            return number

    def cancel(self, msg: Any = None) -> bool:
        """The flow stopped waiting."""
        if not super().cancel(msg):
            return False
        self.machine.abandon(self)
        return True

    @property
    def call_id(self) -> str:
        """The same for this call in each attempt of the flow: the id of the operation that made it first."""
        return self.digest.partition("@")[2] or self.id

    @property
    def source(self) -> str:
        """`file.py:42`, or empty."""
        return place_text(self.place)

    def __str__(self) -> str:
        where = f" ({self.source})" if self.place is not None else ""
        return f"{self.kind} `{self.name}` as operation {self.id}{where}"


def describe_event(event: Event) -> str:
    """An event in the words an operation is described in."""
    kind = EXPECTED_KIND.get(event.kind, event.kind)
    where = f" ({event.source})" if event.source else ""
    name = f" `{event.name}`" if event.name else ""
    return f"{kind}{name} as operation {event.op}{where}" if event.op else f"{kind}{name}{where}"
