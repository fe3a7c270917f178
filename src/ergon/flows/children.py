"""Child flows: started from a flow, awaited or detached, cancelled with their parent."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, TypeVar, overload

from ergon.core.codec import digest
from ergon.core.names import check_name, check_tags
from ergon.errors import NotInFlow, UsageError
from ergon.flows.context import caller_place, current_machine, step_context
from ergon.flows.flow import BoundFlow, FlowCall
from ergon.flows.types import FlowObject, flow_call_of
from ergon.replay.operations import Operation, OperationKind, Place

R = TypeVar("R")


class ChildRequest(NamedTuple):
    """A child flow to start: what an operation of kind `child` carries."""

    call: FlowCall[Any]
    id: str | None
    queue: str | None
    detached: bool
    flow_id: str = ""
    """The child's flow id, once it is known."""
    tags: tuple[str, ...] | None = None


class ChildHandle(Generic[R]):
    """A child flow that was asked for."""

    def __init__(self, flow_id: str, wait: Callable[[], Coroutine[Any, Any, R]]) -> None:
        self.flow_id = flow_id
        self._wait = wait

    async def result(self) -> R:
        """Wait for the child; raises the error it failed with, of its own class.

        Cancelling this wait cancels the child, as cancelling `await task` cancels the task.
        """
        return await self._wait()

    if not TYPE_CHECKING:  # for type checkers it stays what cannot be awaited

        def __await__(self) -> NoReturn:
            raise UsageError("a child's handle is not its result: write `await invoke(...).result()`")


def child_id(parent_id: str, operation: str, number: int = 0) -> str:
    """The id of a child flow whose parent did not name it.

    `number`: a parent that is tried again may ask for another flow than an earlier attempt started there.
    """
    return f"{parent_id}/{operation}~{number}" if number else f"{parent_id}/{operation}"


@overload
def invoke(
    child: FlowCall[R] | BoundFlow[[], R],
    *,
    id: str | None = None,
    queue: str | None = None,
    tags: Sequence[str] | None = None,
    detached: bool = False,
) -> ChildHandle[R]: ...
@overload
def invoke(
    child: FlowObject,
    *,
    id: str | None = None,
    queue: str | None = None,
    tags: Sequence[str] | None = None,
    detached: bool = False,
) -> ChildHandle[Any]: ...
def invoke(
    child: Any,
    *,
    id: str | None = None,
    queue: str | None = None,
    tags: Sequence[str] | None = None,
    detached: bool = False,
) -> ChildHandle[Any]:
    """Start a child flow from a flow or a step; awaiting its `result()` waits for its outcome.

    child: `other_flow.bind(...)`, or an object of a `@flow_type` class.
    id: the child's flow id; default: derived from the parent's, so that a replay finds the same child.
    queue, tags: default: the child flow's own.
    detached: the child outlives its parent; default: it is cancelled when the parent ends first.
    Raises `NotInFlow` outside a flow or a step, and `UsageError` for what is no flow with its arguments.
    """
    return start_child(
        flow_call_of(child),
        id=id,
        queue=queue,
        tags=tags,
        detached=detached,
        place=caller_place(),
    )


def start_child(
    call: FlowCall[R],
    *,
    id: str | None = None,
    queue: str | None = None,
    tags: Sequence[str] | None = None,
    detached: bool = False,
    place: Place,
) -> ChildHandle[R]:
    """`invoke`, typed by the bound flow."""
    if id is not None:
        check_name("flow id", id)
    machine = current_machine()
    wanted = check_tags("flow tag", tags) if tags is not None else None
    request = ChildRequest(call, id, queue, detached, tags=wanted)
    if machine is None:
        context = step_context.get()
        if context is None:
            raise NotInFlow(
                "a child flow can be started only from a flow or a step; elsewhere use a Scheduler."
            )
        return ChildHandle(*context.start_child(request))
    # Of what the code gives: a default may change while the parent lives, and the child keeps the one it started with.
    fingerprint = digest((call.named(), id, detached), {})
    op = machine.ask(OperationKind.CHILD, call.flow.name, fingerprint, request, place)
    number = machine.earlier.child_number(op.id, op.name, fingerprint)
    flow_id = id or child_id(machine.flow_id, op.id, number)
    op.request = request._replace(flow_id=flow_id)
    return ChildHandle(flow_id, partial(_wait, op))


async def _wait(op: Operation) -> Any:
    return await op
