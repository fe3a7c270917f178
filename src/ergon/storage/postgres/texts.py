"""Columns of text travel as one text each, which the server takes apart again.

The driver looks at each element of an array for what it could be, which costs more than all the rest of a step's way
into the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

BETWEEN: Final = "\x1f"
"""Stands before each text of a column, or between two. JSON has no such character, and hardly any name."""
NULL: Final = "\x1e"
"""Stands for None."""


class Unjoinable(UnicodeError):
    """A text holds what stands between texts: the values have to go another way."""


def joined(column: Sequence[str | None]) -> str:
    """A column as `{texts:1}` in a statement takes it. Raises `Unjoinable`."""
    if not column:
        return ""
    if NULL in column:
        raise Unjoinable
    text = BETWEEN.join(["", *[NULL if one is None else one for one in column]])
    if text.count(BETWEEN) != len(column):
        raise Unjoinable
    return text
