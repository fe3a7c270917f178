"""What owners write: one call of `commit.lua` for each commit, fenced inside it by the flow's owner and epoch."""

from __future__ import annotations

from typing import Any, Final

from ergon.core.commit import Commit, Settled
from ergon.errors import IllegalMove
from ergon.storage.redis.rows import encode
from ergon.storage.redis.writes import check_size, new_flow_fields, pack
from ergon.storage.refused import lease_lost

NOT_IN_ORDER: Final = "gap"
"""A commit whose predecessor has not landed. Final unless that one is sent again too."""


def values(commit: Commit) -> list[bytes]:
    """The arguments of the script. Raises what the encoder raises for text that is no text."""
    flow_id, lease, events, consumed, cancels, children, settled, returned = commit
    first = events[0].seq if events else 0
    found = [flow_id.encode(), lease.worker.encode(), b"%d" % lease.epoch, b"%d" % first, b""]
    if events:
        found += [encode(event) for event in events]
        if len(events) > 1 and any(event.seq != first + n for n, event in enumerate(events)):
            found[3] = b"0"  # events out of order follow nothing
    if settled is not None or consumed or cancels or children or returned or not events:
        found[4] = pack(
            {
                "consumed": consumed,
                "cancels": [
                    {"flow": c.flow_id, "op": c.op, "reason": c.reason, "attempt": c.attempt} for c in cancels
                ],
                "children": [new_flow_fields(child) for child in children],
                "settled": None if settled is None else _settled(settled),
                "returned": returned,
            }
        )
    check_size(found)
    return found


def _settled(settled: Settled) -> dict[str, Any]:
    status, output, wake_at, reason, inbox_seen = settled
    return {
        "status": status.value,
        "output": output,
        "wake_at": None if wake_at is None else float(wake_at),
        "reason": reason,
        "inbox_seen": inbox_seen,
    }


def refusal(commit: Commit, answer: list[Any]) -> Exception | None:
    """What an answer of the script means; None when the commit was written."""
    word = answer[0]
    if word == b"ok":
        return None
    if word == b"lost":
        status, owner, epoch = (part.decode() for part in answer[1:4])
        number = int(epoch) if epoch.isdecimal() else 0  # of a damaged flow, which whoever owns it hears of
        return lease_lost(commit, (status, owner, number) if status else None)
    flow_id, about = commit.flow_id, answer[1].decode()
    if word == b"another":
        return IllegalMove(f"flow {flow_id!r} already has another event {about}; nothing was written")
    if word == NOT_IN_ORDER.encode():
        return IllegalMove(f"flow {flow_id!r} has no event {about} yet; nothing was written")
    if word == b"unread":
        return IllegalMove(f"flow {flow_id!r}: message {about} was consumed before or never came")
    return IllegalMove(f"flow {flow_id!r}: no signal was taken with event {about}")
