"""What an option may be, checked where it is given: a mistake is told there, and not by a flow that never ends."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final, TypeGuard

from ergon.core.names import check_name
from ergon.errors import InvalidName, UsageError

SECONDS_MAX: Final = 3.2e9
"""A hundred years."""
WHOLE_MAX: Final = 2**63 - 1
"""The largest number that every log can keep in a column."""
COUNT_MAX: Final = 1_000_000_000


def check_log(log: object) -> None:
    """Raise `UsageError` for a path or a URL in place of an open log; without it, as it may hold a password."""
    if isinstance(log, str | os.PathLike):
        raise UsageError(
            "a path or URL was given where an open log is wanted: async with open_log(...) as log, and give that log"
        )


def check_seconds(what: str, value: object, *, zero: bool = False, endless: bool = False) -> float:
    """Return a number of seconds, else raise `UsageError`. `zero`: it may be 0; `endless`: it may be infinite."""
    if _is_seconds(value) and (value > 0 or zero) and (value <= SECONDS_MAX or endless):
        return value
    least = "from 0" if zero else "greater than 0"
    raise UsageError(f"{what}={value!r}: give seconds {least}{'' if endless else ' up to a hundred years'}")


def check_timeout(value: object) -> float | None:
    """Return a time limit, else raise `UsageError`."""
    if value is None or (_is_seconds(value) and 0 < value <= SECONDS_MAX):
        return value
    raise UsageError(
        f"timeout={value!r}: give seconds greater than 0 up to a hundred years, or None for no limit"
    )


def check_whole(what: str, value: object, *, least: int, most: int = COUNT_MAX) -> int:
    """Return a whole number in this range, else raise `UsageError`."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise UsageError(f"{what}={value!r}: give a whole number from {least:,} to {most:,}")


def check_priority(value: object) -> int:
    """Return a priority, else raise `UsageError`."""
    return check_whole("priority", value, least=-WHOLE_MAX, most=WHOLE_MAX)


def check_names(what: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return several names, at least one, else raise `InvalidName` or `UsageError`."""
    if isinstance(values, str):
        raise InvalidName(f"{what}s={values!r}: give several, such as a tuple; write ({values!r},) for one")
    if not is_iterable(values):
        raise UsageError(f"{what}s={values!r}: give several names, such as a tuple of them")
    names = tuple(check_name(what, value) for value in values)
    if not names:
        raise UsageError(f"{what}s={values!r}: give at least one")
    return names


def is_iterable(value: object) -> bool:
    """Tell whether one can go through it."""
    try:
        iter(value)  # type: ignore[call-overload]
    except TypeError:
        return False
    return True


def _is_seconds(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0  # nan is not
