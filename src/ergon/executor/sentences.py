"""Waits in words: the one sentence that says why a flow does not move."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any, Final

from ergon.core.codec import decoder_for
from ergon.errors import DecodingError

ERROR_CHARS_MAX: Final = 200
_YEAR_2: Final = datetime(2, 1, 1, tzinfo=UTC).timestamp()
_YEAR_9999: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


def read_waits(reason: str) -> tuple[dict[str, Any], ...]:
    """The waits kept in a flow's `reason`; empty when it holds something else."""
    try:
        found = decoder_for(list[dict[str, Any]]).decode(reason)
    except DecodingError:
        return ()
    return tuple(found)


def waits_sentence(waits: tuple[dict[str, Any], ...]) -> str:
    """`waiting for signal "approval" since 10:02:03 and timer due at 11:02:03 (UTC)`."""
    if not waits or waits[0].get("kind") == "code":
        places = " and ".join(dict.fromkeys(_at(wait).strip(" ()") for wait in waits[:3]))
        return (
            "waiting for something that only its own code can give, such as an asyncio.Event"
            + (f", {places}" if places else "")
            + ": it has asked for no step, timer, signal or child"
        )
    return "waiting for " + " and ".join(_one(wait) for wait in waits[:3]) + _more(waits[3:])


def _one(wait: dict[str, Any]) -> str:
    kind, name = wait.get("kind", "?"), wait.get("name", "")
    named = f' "{name}"' if name else ""
    step = f' inside step "{wait["step"]}"' if "step" in wait else ""
    due = f", due at {clock_time(wait['due'])}" if "due" in wait else ""
    since = f" since {clock_time(wait['since'])}" if "since" in wait else ""
    child = f" ({wait['flow_id']})" if "flow_id" in wait else ""
    if kind == "retry":
        return f"the next attempt of{named}{due}{_failed(wait)}"
    if kind == "turn":
        return "its turn to begin, apart from others whose workers died"
    if kind == "more":
        return f"{wait.get('count')} more"
    if kind == "timer" and not named:
        return f"a timer{step}{due}{_at(wait)}"
    return f"{kind}{named}{child}{step}{due or since}{_at(wait)}"


def _at(wait: dict[str, Any]) -> str:
    return f" (at {wait['source']})" if wait.get("source") else ""


def _failed(wait: dict[str, Any]) -> str:
    """Why there is another attempt, where that is known."""
    if "error" not in wait:
        return _at(wait)
    return f" (attempt {wait['failed_attempt']} failed: {wait['error']})"


def _more(rest: tuple[dict[str, Any], ...]) -> str:
    count = sum(wait.get("count", 1) for wait in rest)
    return f" and {count} more" if count else ""


def plain_reason(reason: str) -> str:
    """What a person or Ergon wrote as a flow's `reason`; empty when it holds waits."""
    return "" if reason == "[]" or read_waits(reason) else reason


def one_line(text: str) -> str:
    """A text of several lines in one, for a sentence or a cell of a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    joined = "".join(
        line + (" " if line[-1] in ".:;,!?" else ". " if following[0].isupper() else "; ")
        for line, following in itertools.pairwise(lines)
    )
    return joined + lines[-1] if lines else ""


def clock_time(at: float) -> str:
    """A log time for people: date and time to the second, in UTC."""
    return datetime.fromtimestamp(writable(at), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def writable(at: float) -> float:
    """The time, or the nearest one that a calendar of four digits can name in every time zone."""
    return min(max(at, _YEAR_2), _YEAR_9999)
