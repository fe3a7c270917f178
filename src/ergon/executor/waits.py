"""What a flow waits for, as data: kept in the log while it is suspended, told by `ergon why`."""

from __future__ import annotations

import math
from typing import Any

from ergon.core.codec import encode
from ergon.replay.machine import FlowMachine
from ergon.replay.operations import OperationKind

WAITS_MAX = 20
"""More waits than this are counted, not listed."""


def describe_waits(machine: FlowMachine, bodies: list[dict[str, Any]]) -> str:
    """JSON: a list of waits, each with `kind`, `name`, `op`, `since` and what is special to it."""
    waits: list[dict[str, Any]] = list(bodies)
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
    if len(waits) > WAITS_MAX:
        waits = [*waits[:WAITS_MAX], {"kind": "more", "count": len(waits) - WAITS_MAX}]
    return encode(waits)
