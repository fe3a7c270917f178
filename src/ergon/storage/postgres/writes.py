"""What waits for the group commit, besides commits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ergon.core.commit import Commit, FlowRecord, Message, NewFlow

Done = Callable[["BaseException | None"], None]


class Create:
    """A new flow that somebody waits for."""

    __slots__ = ("flow", "found", "future")
    name = "create"

    def __init__(self, flow: NewFlow, future: asyncio.Future[FlowRecord | None]) -> None:
        self.flow, self.future = flow, future
        self.found: FlowRecord | None = None
        """The flow that has its id already."""

    def done(self, error: BaseException | None) -> None:
        """Tell whoever waits."""
        if self.future.done():
            return  # it was cancelled while it waited
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self.found)


class Send:
    """A message that somebody waits to have sent."""

    __slots__ = ("future", "message")
    name = "send"

    def __init__(self, message: Message, future: asyncio.Future[None]) -> None:
        self.message, self.future = message, future

    def done(self, error: BaseException | None) -> None:
        """Tell whoever waits."""
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(None)


What = Commit | Create | Send


def name_of(what: What) -> str:
    """What failpoints call it."""
    return what.name if isinstance(what, Create | Send) else "commit"


def length_of(what: What) -> int:
    """How many characters its values have; names and the like, which are short, not counted."""
    if type(what) is Create:
        return len(what.flow.input)
    if type(what) is Send:
        return len(what.message.payload or "")
    assert type(what) is Commit, "there are three kinds"
    _, _, events, _, _, children, settled, _ = what
    length = 0
    for event in events:
        length += len(event.payload or "")
    for child in children:
        length += len(child.input)
    return length if settled is None else length + len(settled.output or "")
