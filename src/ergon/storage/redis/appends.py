"""Commits of events alone, which is what running steps make: one call of `append.lua` for many flows of a part.

What a broken connection leaves behind is what any call leaves: all of it was done or nothing. Sent again it writes
nothing twice, as each commit says which number its first event has; `commit.lua` is asked about those that this call
did not write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from ergon.core.commit import Commit
from ergon.storage.redis.connection import Command
from ergon.storage.redis.partitions import Partitions
from ergon.storage.redis.rows import encode
from ergon.storage.redis.writes import check_size

EVENTS_MAX: Final = 1_000
"""What Lua takes from a list at once."""
_COMMITS_MAX: Final = 256
"""How many share a call: the server does nothing else meanwhile."""
_BYTES_MAX: Final = 4 * 1024 * 1024


def fits(commit: Commit) -> bool:
    """Tell whether a commit is of the most common kind."""
    _, _, events, consumed, cancels, children, settled, returned = commit
    if settled is not None or consumed or cancels or children or returned:
        return False
    if len(events) == 1:
        return True
    first = events[0].seq if events else 0
    return 0 < len(events) <= EVENTS_MAX and all(event.seq == first + n for n, event in enumerate(events))


def not_appended(places: tuple[int, ...], answer: Any) -> Sequence[int] | None:
    """Which of the commits at these places were not written, by an answer of scripts that only add events.

    None: it is another script's answer, or it is about none of them.
    """
    if isinstance(answer, int):
        return ()
    if isinstance(answer, list) and isinstance(answer[0], int):
        return [place for place, was_written in zip(places, answer, strict=True) if not was_written]
    return None


class Call:
    """One call in the making: the places of its commits in the batch, and their arguments."""

    __slots__ = ("places", "size", "values")

    def __init__(self) -> None:
        self.places: list[int] = []
        self.values: list[bytes] = []
        self.size = 0


class Appends:
    """Those of one batch. A flow's second commit is not for here: it would overtake nothing, but come too late."""

    def __init__(self, partitions: Partitions) -> None:
        self._partitions = partitions
        self._open: dict[int, Call] = {}
        self._all: list[tuple[int, Call]] = []

    def add(self, place: int, commit: Commit) -> None:
        """Add a commit that fits. Raises what the encoder raises, and `EncodingError`; then nothing was added."""
        flow_id, (worker, epoch), events = commit[:3]
        told = [encode(event) for event in events]
        values = [
            flow_id.encode(),
            worker.encode(),
            b"%d" % epoch,
            b"%d" % events[0].seq,
            b"%d" % len(told),
            *told,
        ]
        size = sum(map(len, told))
        if size > _BYTES_MAX:
            check_size(told)
        partition = self._partitions.of(flow_id)
        call = self._open.get(partition)
        if call is None or len(call.places) >= _COMMITS_MAX or call.size + size > _BYTES_MAX:
            call = self._open[partition] = Call()
            self._all.append((partition, call))
        call.places.append(place)
        call.values += values
        call.size += size

    def commands(self) -> Iterator[tuple[tuple[int, ...], Command]]:
        """Each call, with the places of its commits."""
        for partition, call in self._all:
            yield tuple(call.places), self._partitions.append(partition, call.values)
