"""Failures in words: in one line, or each of its errors in a line of its own."""

from __future__ import annotations

from typing import Final

import msgspec

from ergon.core.failure import CHAIN_MAX
from ergon.core.tagged import cut
from ergon.executor.sentences import ERROR_CHARS_MAX, one_line

MEMBERS_TOLD: Final = 3
"""Members of an exception group that a line names."""
MEMBER_CHARS_MAX: Final = 100
_UNREADABLE: Final = "an error that cannot be read"


class _Failure(msgspec.Struct):
    """What is told of a failure."""

    type: str
    message: str = ""
    traceback: list[str] = []
    place: str = ""
    inside: bool = False
    cause: _Failure | None = None
    context: _Failure | None = None
    group: list[_Failure] = []
    group_dropped: int = 0


def failure_line(payload: str | None, chars_max: int = ERROR_CHARS_MAX) -> str:
    """A recorded failure in one line: class, message, and the line that raised it; of a group its first members.

    A cause is named where there is room.
    """
    found = _read(payload)
    if found is None:
        return _UNREADABLE
    line = _with_members(found, chars_max) if found.group else _with_place(found, chars_max)
    if found.cause is not None and found.cause.message and found.cause.message not in line:
        with_cause = f"{line} (caused by {_with_place(found.cause, chars_max)})"
        return with_cause if len(with_cause) <= chars_max else line
    return line


def failure_lines(payload: str | None) -> list[tuple[str, int]]:
    """Each error of a recorded failure with all its known frames, and how deep it lies below the one before."""
    found = _read(payload)
    if found is None:
        return [(_UNREADABLE, 0)]
    lines: list[tuple[str, int]] = []
    _add_lines(lines, "", found, 0)
    return lines


def _read(payload: str | None) -> _Failure | None:
    try:
        return msgspec.json.decode(payload or "", type=_Failure)
    except (msgspec.MsgspecError, RecursionError):
        return None


def _add_lines(lines: list[tuple[str, int]], role: str, found: _Failure, depth: int) -> None:
    text = f"{role}{found.type.rpartition('.')[2]}: {found.message}".removesuffix(": ")
    lines.append((text + (f"   {' > '.join(found.traceback)}" if found.traceback else ""), depth))
    if depth >= CHAIN_MAX:
        return
    for number, member in enumerate(found.group, 1):
        _add_lines(lines, f"member {number}: ", member, depth + 1)
    if found.group_dropped > 0:
        lines.append((f"and {found.group_dropped} more", depth + 1))
    if found.cause is not None:
        _add_lines(lines, "caused by ", found.cause, depth + 1)
    elif found.context is not None:
        _add_lines(lines, "raised while handling ", found.context, depth + 1)


def _with_place(found: _Failure, chars_max: int) -> str:
    line = cut(one_line(f"{found.type.rpartition('.')[2]}: {found.message}".removesuffix(": ")), chars_max)
    place = _at_line(found)
    return line.removesuffix(".") + place if place else line


def _with_members(found: _Failure, chars_max: int) -> str:
    """The group's own place is where it was left: what there is to mend is where its members were raised."""
    members = _leaves(found, 0)
    told = [_with_place(member, MEMBER_CHARS_MAX) for member in members[:MEMBERS_TOLD]]
    more = len(members) - len(told) + _dropped(found, 0)
    head = cut(one_line(f"{found.type.rpartition('.')[2]}: {found.message}"), chars_max)
    return f"{head}: {'; '.join(told)}" + (f"; and {more} more" if more else "")


def _leaves(found: _Failure, depth: int) -> list[_Failure]:
    """The errors in a group and in the groups within it."""
    if not found.group or depth >= CHAIN_MAX:
        return [found]
    return [leaf for member in found.group for leaf in _leaves(member, depth + 1)]


def _dropped(found: _Failure, depth: int) -> int:
    below = sum(_dropped(member, depth + 1) for member in found.group) if depth < CHAIN_MAX else 0
    return max(found.group_dropped, 0) + below


def _at_line(found: _Failure) -> str:
    frame = found.place or (found.traceback[-1] if found.traceback and not found.inside else "")
    place = frame.rpartition(" (")[2].removesuffix(")")
    return f", at {place}" if place else ""
