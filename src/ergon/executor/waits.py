"""What a flow waits for, as data: kept in the log while it is suspended, told by `ergon why`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Final

from ergon.core.codec import encode
from ergon.replay.machine import FlowMachine
from ergon.replay.operations import OperationKind, Place, place_text, waiting_places

WAITS_MAX: Final = 20
"""More waits than this are counted, not listed."""
STACK_MAX: Final = 20
"""More frames than this are left out, the outermost first."""
OWN_CODE: Final = "code"
"""The kind of a wait for something that only the flow's own code can give, such as an asyncio.Event."""


NOT_BEGUN: Final = encode([{"kind": "turn", "name": "", "op": ""}])
"""Of a flow that waits until others have begun: see `ergon.worker.turns`."""


def describe_waits(machine: FlowMachine, bodies: list[dict[str, Any]]) -> str:
    """JSON: a list of waits, each with `kind`, `name`, `op`, `since`, `source` and what is special to it.

    `stack` is who awaits whom, outermost first, where that is more than the line in `source`.
    """
    tasks = {task.ergon_path: task for task in machine.loop.tasks.values()}
    waits = _waits(machine, bodies) or [
        {"kind": OWN_CODE, "name": "", "op": path} for path, task in tasks.items() if not task.done()
    ]
    for wait in waits[:WAITS_MAX]:
        _add_stack(wait, tasks)
    if len(waits) > WAITS_MAX:
        waits = [*waits[:WAITS_MAX], {"kind": "more", "count": len(waits) - WAITS_MAX}]
    return encode(waits)


def _add_stack(wait: dict[str, Any], tasks: Mapping[str, asyncio.Task[Any]]) -> None:
    path = str(wait["op"]).partition(":")[0]
    places: list[Place] = []
    while path and not places:
        # A task without code of the user's, such as of `gather(wait_signal("x"))`: its parent's then.
        if path in tasks:
            places = waiting_places(tasks[path])
        path = path.rpartition("/")[0]
    if places and not wait.get("source"):
        wait["source"] = place_text(places[-1])
    if len(places) > 1:
        wait["stack"] = [f"{place[0].co_qualname} ({place_text(place)})" for place in places[-STACK_MAX:]]


def _waits(machine: FlowMachine, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    waits: list[dict[str, Any]] = [dict(wait) for wait in bodies]
    in_body = {wait["op"] for wait in bodies}
    for box in machine.mailboxes.values():
        waits += [
            {
                "kind": "signal",
                "name": box.name,
                "op": waiter.op,
                "since": waiter.since,
                "source": waiter.source,
            }
            for waiter in box.waiters
        ]
    for op in machine.pending.values():
        if op.id not in in_body:
            waits.append(
                {"kind": op.kind, "name": op.name, "op": op.id, "since": op.asked_at, "source": op.source}
                | ({"flow_id": str(op.request.flow_id)} if op.kind == OperationKind.CHILD else {})
            )
    waits += [
        {"kind": "timer", "name": timer.name, "op": timer.op}
        | ({"due": timer.when()} if timer.when() < math.inf else {})
        for timer in machine.loop.armed()
    ]
    return waits
