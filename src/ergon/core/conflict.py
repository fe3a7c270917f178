"""An id that a flow has already, and another call asks for."""

from __future__ import annotations

from ergon.core.codec.objects import differing
from ergon.core.commit import FlowRecord, NewFlow
from ergon.errors import FlowIdConflict


def id_conflict(existing: FlowRecord, asked: NewFlow) -> FlowIdConflict:
    """Say what the flow that has the id is, and in which parameters its input differs from what was asked for."""
    belongs = f"flow id {asked.id!r} belongs to a flow `{existing.name}`"
    if existing.name != asked.name:
        return FlowIdConflict(f"{belongs}, not `{asked.name}`; choose another id")
    names = differing(existing.input, asked.input)
    return FlowIdConflict(
        f"{belongs} with another input{f' (in {names})' if names else ''}; choose another id, or repeat the call with "
        "the same input"
    )
