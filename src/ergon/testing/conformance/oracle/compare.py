"""Compare what a log shows with what the model holds."""

from __future__ import annotations

import itertools
import json
from typing import NamedTuple

from ergon.core.commit import FlowFilter, FlowRecord, Received
from ergon.core.history import Event, EventKind
from ergon.testing.conformance.oracle.flows import ModelFlow, ModelMessage
from ergon.testing.conformance.oracle.model import Model


class Difference(AssertionError):
    """The log and the model came apart."""


class Seen(NamedTuple):
    """What a log shows of the flows of one sequence, or of some of them."""

    flows: dict[str, FlowRecord | None]
    histories: dict[str, list[Event]]
    inboxes: dict[str, list[Received]]


def compare(model: Model, seen: Seen, prefix: str) -> None:
    """Raise `Difference` unless the log shows what the model holds; messages of the model learn their ids."""
    for id, found in seen.flows.items():
        there = model.find(id)
        equal(f"whether {id[len(prefix) :]} is there", found is not None, there is not None)
        if found is not None and there is not None:
            if there.epoch < 0:
                _learn_epoch(found, there, model.flows.epochs.get(id, -1))
            equal(f"flow {id[len(prefix) :]}", _record(found), _expected(there))
    for id, events in seen.histories.items():
        there = model.find(id)
        equal(f"the history of {id[len(prefix) :]}", plain(events), plain(there.events if there else []))
        align(f"the inbox of {id[len(prefix) :]}", seen.inboxes[id], there.unread if there else [])


def _learn_epoch(found: FlowRecord, there: ModelFlow, earlier: int) -> None:
    """Of a new flow: an epoch that it has been claimed at was never one of an earlier flow with its id."""
    equal(f"how often {found.id} has been claimed", found.claims, int(there.owner is not None))
    if found.epoch < earlier + (there.owner is not None):
        raise Difference(f"the epochs of {found.id} come again: {found.epoch}, and it had {earlier} before")
    there.epoch = found.epoch


def align(what: str, found: list[Received], expected: list[ModelMessage]) -> None:
    """Compare messages. Those that one operation brought have no order among them; all have the log's ids then."""
    equal(f"the length of {what}", len(found), len(expected))
    place = 0
    for _, group in itertools.groupby(expected, key=lambda message: message.tick):
        theirs = sorted(group, key=_content)
        ours = sorted(found[place : place + len(theirs)], key=_content)
        place += len(theirs)
        equal(what, [_content(one) for one in ours], [_content(one) for one in theirs])
        for one, other in zip(ours, theirs, strict=True):
            other.id = one.id


def _content(message: Received | ModelMessage) -> tuple[str, str, str]:
    payload = message.payload
    if payload is not None and message.kind in ("child", "taken"):
        payload = json.dumps(json.loads(payload), sort_keys=True)
    return message.kind, message.name, payload if payload is not None else "none"


def plain(events: list[Event]) -> list[Event]:
    """Without the times that the log gave."""
    own = (EventKind.FLOW_RETRIED, EventKind.RETRY_NOW)
    return [event._replace(at=0.0) if event.kind in own else event for event in events]


def _record(flow: FlowRecord) -> dict[str, object]:
    """A flow of the log, its times told apart only by whether there is one."""
    times = ("created_at", "started_at", "ended_at", "wake_at", "deadline_at")
    return {name: value is not None if name in times else value for name, value in flow._asdict().items()}


def _expected(flow: ModelFlow) -> dict[str, object]:
    return {
        **{
            name: getattr(flow, name)
            for name in ("id", "name", "status", "queue", "version", "priority", "input")
        },
        "output": flow.output,
        "reason": flow.reason,
        "created_at": True,
        "started_at": flow.started,
        "ended_at": flow.ended,
        "wake_at": flow.wake,
        "deadline_at": flow.deadline,
        "owner": flow.owner,
        "epoch": flow.epoch,
        "claims_stalled": flow.stalled,
        "parent_id": flow.parent_id,
        "parent_op": flow.parent_op,
        "close_with_parent": flow.close_with_parent,
        "tags": flow.tags,
    }


def matches(flow: ModelFlow, where: FlowFilter) -> bool:
    """Whether a filter lets a flow through."""
    return (
        (not where.statuses or flow.status in where.statuses)
        and flow.name in where.names
        and where.queue in (None, flow.queue)
        and where.version in (None, flow.version)
        and {*where.tags} <= {*flow.tags}
        and where.parent_id in (None, flow.parent_id)
    )


def equal(what: str, found: object, expected: object) -> None:
    """Raise `Difference` unless they are equal."""
    if found != expected:
        if isinstance(found, dict) and isinstance(expected, dict) and found.keys() == expected.keys():
            found, expected = (
                {key: one[key] for key in found if found[key] != expected[key]} for one in (found, expected)
            )
        raise Difference(f"{what} differs\n  the log has:       {found}\n  the contract says: {expected}")
