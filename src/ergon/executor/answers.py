"""What a flow is given to see: its input when it begins, and the recorded answers to what it asked for."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

from ergon.core.failure import rebuild
from ergon.core.history import Event, EventKind
from ergon.errors import DecodingError
from ergon.flows.flow import Flow
from ergon.replay.operations import Operation, OperationKind

_FAILURES: Final = frozenset({EventKind.STEP_FAILED, EventKind.CHILD_FAILED})


def enter(flow: Flow[..., Any], stored: str) -> Coroutine[Any, Any, Any]:
    """The flow's coroutine, called with its stored input."""
    args, kwargs = flow.decode_input(stored)
    return flow.function(*args, **kwargs)  # type: ignore[no-any-return]


def read_answer(op: Operation, event: Event) -> Any:
    """Decode a recorded answer, or raise the recorded error. One that no longer fits the code stops the machine."""
    payload = event.payload if event.payload is not None else "null"
    if event.kind in _FAILURES:
        raise rebuild(payload)
    decoder = (
        op.request.call.flow.result_decoder if op.kind == OperationKind.CHILD else op.request.step.decoder
    )
    try:
        return decoder.decode(payload)
    except DecodingError as error:
        op.machine.stop(
            DecodingError(
                f"the recorded result of {op} no longer fits its annotation: {error}. Give new fields a "
                "default, or guard the change with `patched(id)`",
                path=error.path,
            )
        )
        return None
