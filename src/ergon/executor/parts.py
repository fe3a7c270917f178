"""What the parts of a flow in memory know of its run: whom they tell what happened, and ask to move the flow on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from ergon.core.commit import Settled
    from ergon.core.history import Event
    from ergon.core.status import TaskStatus
    from ergon.executor.outbox import Fact


class Run(Protocol):
    """`answered` and `landed` may run the flow's code, so they are called from plain callbacks of the host loop.

    The others are called from tasks too, such as a step body's.
    """

    def answered(self, event: Event, value: Any) -> None:
        """A step's result is durable that had a commit to itself; `value` is what the flow will see."""

    def landed(self, facts: list[Fact], settled: Settled | None) -> None:
        """Any other commit is durable."""

    def lose(self, why: str, status: str) -> None:
        """The log refused a commit: the flow is another's, or nobody's and stands like `status`."""

    def taken_away(self, status: TaskStatus | None) -> None:
        """The log says that the flow is not this run's any more, and where it stands (None: it is gone)."""

    def advance(self) -> None:
        """Something was asked for or came: take it in, and commit."""

    def went_idle(self) -> None:
        """The flow has begun to only wait."""

    def interrupt(self) -> None:
        """A body was asked to end the process."""

    def park(self, why: Exception) -> None:
        """What a body came to met a defect."""


class _Nobody:
    """In place of a run that has ended: its parts let go of it, and tell nobody."""

    def answered(self, event: Event, value: Any) -> None:
        pass

    def landed(self, facts: list[Fact], settled: Settled | None) -> None:
        pass

    def lose(self, why: str, status: str) -> None:
        pass

    def taken_away(self, status: TaskStatus | None) -> None:
        pass

    def advance(self) -> None:
        pass

    def went_idle(self) -> None:
        pass

    def interrupt(self) -> None:
        pass

    def park(self, why: Exception) -> None:
        pass


NOBODY: Final[Run] = _Nobody()
