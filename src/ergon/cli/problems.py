"""What ends a verb early: one line for a person, one exit code for a script.

0    done
1    the flow failed, something is wrong (`doctor`), or nothing was found as asked
2    bad input: an option, an id, a date, a target, a log that is not there
70   a mistake in Ergon itself
130  interrupted
"""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
BAD_INPUT: Final = 2
INTERNAL: Final = 70
INTERRUPTED: Final = 130


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
