"""Where a reader of arrivals stands: what it remembers between two calls is one number, made here.

A message whose transaction overtook another one that has not ended is read again, with those of the other. It is told
only once: the number says which answer the caller has, and this process remembers which messages that answer held. An
answer that nobody got is remembered for nothing, as nobody comes back with its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ergon.core.commit import Received

_ANSWER: Final = 1 << 64
_CUT: Final = 1 << 96
_REMEMBERED_MAX: Final = 1_000
_STAYS: Final = 1_000
"""How many transactions may pass until a cursor moves on without a message for its worker."""


class Cursors:
    """Makes the cursors of one handle on a log."""

    def __init__(self) -> None:
        self._answers = 0
        self._told: dict[int, frozenset[int]] = {}

    def place(self, cursor: int, cuts: int) -> int:
        """The transaction to read from; 0, from the start, when a connection was lost since.

        Then another server may answer, whose transactions have other numbers.
        """
        before, rest = divmod(cursor, _CUT)
        return rest % _ANSWER if before == cuts else 0

    def answer(
        self, cursor: int, cuts: int, place: int, messages: Sequence[Received], again: frozenset[int]
    ) -> tuple[int, list[Received]]:
        """The next cursor, and what is new to whoever came with `cursor`."""
        before, rest = divmod(cursor, _CUT)
        number, stood = divmod(rest, _ANSWER)
        told = self._told.get(number, frozenset()) if before == cuts else frozenset()
        fresh = [message for message in messages if message.id not in told]
        if not fresh and before == cuts and place - stood < _STAYS:
            return cursor, []
        number = self._remember(again) if again else 0
        return cuts * _CUT + number * _ANSWER + place, fresh

    def _remember(self, again: frozenset[int]) -> int:
        self._answers += 1
        self._told[self._answers] = again
        if len(self._told) > _REMEMBERED_MAX:
            del self._told[next(iter(self._told))]
        return self._answers
