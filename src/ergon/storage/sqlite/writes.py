"""What waits for the group commit, besides commits: one value for each write of the other facets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from ergon.core.commit import ClaimedFlow, Commit, FlowRecord, Message, NewFlow
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

    __slots__ = ("claimed", "flow")

    def __init__(self, flow: NewFlow, future: asyncio.Future[FlowRecord | None]) -> None:
        self.name, self.future, self.flow = "create", future, flow
        self.result: FlowRecord | None = None
        self.claimed: ClaimedFlow | None = None
        """The flow as a claim would bring it, when it was created under an owner."""

    def apply(self, tx: Transaction) -> FlowRecord | None:  # no slot: it would refer to itself
        """Create this one alone."""
        self.claimed = None
        found = intake.create_alone(tx, self.flow)
        if found is None:
            claim_new(tx, [self])
        return found


def claim_new(tx: Transaction, creates: Iterable[Create]) -> None:
    """Note for each flow just created under an owner what a claim would bring."""
    owned = [create for create in creates if create.flow.owner is not None]
    if owned:
        for create, claimed in zip(owned, intake.claimed(tx, [each.flow for each in owned]), strict=True):
            create.result, create.claimed = None, claimed


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
