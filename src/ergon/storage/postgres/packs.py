"""Results of one step of the code that come together, as of a `gather`, are one row: a pack.

Hundreds of rows with an index cost the server more than all the rest of such a commit (500 results 2.7 ms, as a pack
1.0, the flush and the way there included). A pack has what they have in common once, their numbers by the first and the
last, and their other texts as they travel: see `texts.py`. Its row stands where its first event would, so that a commit
which is sent again meets it, whichever way it goes then. Whoever reads a history gets events; the columns are in the
schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from ergon.core.history import Event, EventKind, make_event
from ergon.errors import LogDamaged
from ergon.storage.postgres.texts import BETWEEN, NULL

LENGTH_MAX: Final = 1 << 20
"""In characters of the three texts. More are rows of their own: a page of a history is read by the row."""


def pack(events: Sequence[Event]) -> list[Any] | None:
    """The columns of a pack, without the flow's id; None where these events are none."""
    seqs, kinds, ops, names, digests, payloads, ats, sources, attempts = zip(*events, strict=True)
    count = len(events)
    if (
        kinds.count(EventKind.STEP_COMPLETED) < count
        or names.count(names[0]) < count
        or sources.count(sources[0]) < count
        or attempts.count(attempts[0]) < count
        or seqs != tuple(range(seqs[0], seqs[0] + count))
        or NULL in payloads
    ):
        return None
    results = [NULL if one is None else one for one in payloads] if None in payloads else payloads
    op, digest, payload = texts = [BETWEEN.join(column) for column in (ops, digests, results)]
    if sum(map(len, texts)) > LENGTH_MAX or any(text.count(BETWEEN) >= count for text in texts):
        return None
    return [seqs[0], kinds[0], op, names[0], digest, payload, ats[0], sources[0], attempts[0], seqs[-1], ats]


def events_of(rows: Iterable[Sequence[Any]], flow_id: str) -> list[Event]:
    """The events in rows of `{event}` of one flow, in their order. Raises `LogDamaged`."""
    events: list[Event] = []
    last = 0
    for row in rows:
        if row[0] <= last:
            raise damaged(flow_id, row[0], f", its number is not above {last}, where the row before ends")
        if row[-2] is None and row[-1] is None:
            events.append(make_event(tuple(row[:-2])))
        else:
            events += _unpacked(row, flow_id)
        last = events[-1].seq
    return events


def _unpacked(row: Sequence[Any], flow_id: str) -> list[Event]:
    seq, kind, ops, name, digests, payloads, _, source, attempt, last, ats = row
    try:
        return [
            Event(number, kind, op, name, digest, None if payload == NULL else payload, at, source, attempt)
            for number, op, digest, payload, at in zip(
                range(seq, last + 1),
                ops.split(BETWEEN),
                digests.split(BETWEEN),
                payloads.split(BETWEEN),
                ats,
                strict=True,
            )
        ]
    except (ValueError, TypeError, AttributeError) as error:
        raise damaged(flow_id, seq, ", it does not hold as many of each as there are events in it") from error


def damaged(flow_id: str, seq: int, more: str) -> LogDamaged:
    """The error for a row that nobody can read; `more` follows the words that say so."""
    return LogDamaged(
        f"flow {flow_id!r} is damaged: the row of its event {seq} in table events cannot be read{more}. Mend the row; "
        "other flows are not concerned",
        flow_id=flow_id,
    )
