"""One call of a step, as a coroutine that costs no frame."""

from __future__ import annotations

import warnings
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, Final

from ergon.core.codec import digest
from ergon.replay.operations import Operation, OperationKind, Place, place_text

if TYPE_CHECKING:
    from ergon.flows.steps import Step
    from ergon.replay.loop import FlowLoop


class StepCall(Coroutine[Any, Any, Any]):
    """One call of a step in a flow: what the flow awaits, and what the executor is asked to do.

    A coroutine in all but name, so that `create_task` and `gather` take it; awaited directly it adds no frame
    between the flow and the answer. Like any coroutine it does nothing until it is awaited.
    """

    __slots__ = ("_bound", "_iterator", "_loop", "_place", "args", "kwargs", "step")

    def __init__(
        self,
        step: Step[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        place: Place,
        loop: FlowLoop,
        *,
        bound: bool = False,
    ) -> None:
        """`bound`: the first argument is the object that the step was called on."""
        self.step = step
        self.args = args
        self.kwargs = kwargs
        self._place = place
        self._loop = loop
        self._bound = bound
        self._iterator: Generator[Any, Any, Any] | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        if self._iterator is not None:
            self.check_unused()
        self._iterator = iterator = self._ask().__await__()
        return iterator

    def check_unused(self) -> None:
        """Raise `RuntimeError` when this call was awaited, or handed to a task, before."""
        if self._iterator is not None:
            raise RuntimeError(
                f"this call of step `{self.step.name}` was awaited before; call the step again"
            )

    def ask_alone(self) -> Operation:
        """Ask now, as a task of its own would."""
        return self._ask(self._loop.current_scope().next_lone_operation())

    def _ask(self, op_id: str | None = None) -> Operation:
        self._iterator = _ENDED  # should asking fail
        step, args = self.step, self.args
        if step.owners and step.is_called_on_object(args, bound=self._bound):
            args = args[1:]
        fingerprint = digest(args, self.kwargs)
        machine = self._loop.machine
        assert machine is not None, "no code runs of a flow that has left memory"
        return machine.ask(OperationKind.STEP, step.name, fingerprint, self, self._place, op_id)

    def send(self, value: Any) -> Any:
        """As of a coroutine: tasks drive the call with it."""
        if self._iterator is None:
            return next(self.__await__())
        return self._iterator.send(value)

    def throw(self, error: Any, value: Any = None, trace: Any = None) -> Any:
        """As of a coroutine."""
        if self._iterator is None:
            self._iterator = _ENDED
            raise value if value is not None else error
        return self._iterator.throw(error if value is None else value)

    def close(self) -> None:
        """As of a coroutine."""
        if self._iterator is None:
            self._iterator = _ENDED
        else:
            self._iterator.close()

    def __del__(self) -> None:
        if self._iterator is None:
            warnings.warn(
                f"step `{self.step.name}` was called at {place_text(self._place)} but never awaited",
                RuntimeWarning,
                stacklevel=2,
            )


_ENDED: Final[Generator[Any, Any, Any]] = (_ for _ in ())
_ENDED.close()
