"""What ends a verb early: one line for a person, one exit code for a script. `ENDINGS` says which."""

from __future__ import annotations

from typing import Final, NamedTuple

from ergon.errors import (
    EncodingError,
    ErgonError,
    FlowIdConflict,
    IllegalMove,
    LogRefused,
    LogTooNew,
    UsageError,
)

OK: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
INTERNAL: Final = 70
INTERRUPTED: Final = 130


class Ending(NamedTuple):
    """An exit code, what it means, and the errors that end a verb with it."""

    code: int
    meaning: str
    errors: tuple[type[Exception], ...] = ()
    """With all below them in their tree that no other ending names."""


ENDINGS: Final = (
    Ending(OK, "done"),
    Ending(
        FAILED,
        "the flow failed, something is wrong, such as a log that is busy, full, damaged or out of reach, or nothing "
        "was found as asked: the same command may succeed later",
        (ErgonError, OSError),
    ),
    Ending(
        BAD_INPUT,
        "bad input, such as an option, an id, a target, an act that a flow's status does not allow, or a log that is "
        "refused or too new: the same command would fail again",
        (UsageError, EncodingError, FlowIdConflict, IllegalMove, LogRefused, LogTooNew),
    ),
    Ending(INTERNAL, "a mistake in Ergon"),
    Ending(INTERRUPTED, "interrupted"),
)


def exit_code_of(error: Exception) -> int:
    """The exit code for an error that is no `Problem`: that of the nearest class that is in the table."""
    codes = {kind: ending.code for ending in ENDINGS for kind in ending.errors}
    return next((codes[kind] for kind in type(error).__mro__ if kind in codes), INTERNAL)


class Problem(Exception):
    """The message is shown as it is; it says what was wrong and what would be right."""

    exit_code = FAILED


class NothingFound(Problem):
    """What was asked for is not there."""


class FlowDidNotComplete(Problem):
    """The flow failed, was cancelled or is parked."""


class BadInput(Problem):
    """The command itself cannot be right."""

    exit_code = BAD_INPUT
