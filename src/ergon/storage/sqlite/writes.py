"""What waits for the group commit, besides commits: one value for each write of the other facets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ergon.core.commit import Commit, FlowRecord, Message, NewFlow
from ergon.storage.sqlite import intake
from ergon.storage.sqlite.transaction import Transaction

T = TypeVar("T")
Done = Callable[["BaseException | None"], None]


class Write(Generic[T]):
    """A write that somebody awaits. `apply` runs on the writer's thread, `done` on the event loop."""

    __slots__ = ("apply", "future", "name", "result")

    def __init__(self, name: str, apply: Callable[[Transaction], T], future: asyncio.Future[T]) -> None:
        self.name, self.apply, self.future = name, apply, future
        self.result: T | None = None

    def done(self, error: BaseException | None) -> None:
        """Tell whoever waits."""
        if self.future.done():
            return  # it was cancelled while it waited
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class Create(Write["FlowRecord | None"]):
    """Many of these become one statement."""

    __slots__ = ("flow",)

    def __init__(self, flow: NewFlow, future: asyncio.Future[FlowRecord | None]) -> None:
        super().__init__("create", lambda tx: intake.create_alone(tx, flow), future)
        self.flow = flow


class Send(Write[None]):
    """Many of these become one statement."""

    __slots__ = ("message",)

    def __init__(self, message: Message, future: asyncio.Future[None]) -> None:
        super().__init__("send", lambda tx: intake.send_alone(tx, message), future)
        self.message = message


class Unasked(Write[None]):
    """A write from another thread than the event loop's; nobody waits for it."""

    __slots__ = ()

    def __init__(self, name: str, apply: Callable[[Transaction], None]) -> None:
        self.name, self.apply, self.result = name, apply, None

    def done(self, error: BaseException | None) -> None:
        """There is nobody to tell."""


What = Commit | Write[Any]
