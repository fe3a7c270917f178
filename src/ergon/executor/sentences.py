"""Waits in words: the one sentence that says why a flow does not move."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

from ergon.core.codec import decoder_for
from ergon.errors import DecodingError


def read_waits(reason: str) -> tuple[dict[str, Any], ...]:
    """The waits kept in a flow's `reason`; empty when it holds something else."""
    try:
        found = decoder_for(list[dict[str, Any]]).decode(reason)
    except DecodingError:
        return ()
    return tuple(found)


def waits_sentence(waits: tuple[dict[str, Any], ...]) -> str:
    """`waiting for signal "approval" since 10:02:03 and timer due at 11:02:03 (UTC)`."""
    if not waits:
        return (
            "waiting for something that only its own code can give, such as an asyncio.Event: "
            "it has asked for no step, timer, signal or child"
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
        return f"the next attempt of{named}{due}"
    if kind == "more":
        return f"{wait.get('count')} more"
    if kind == "timer" and not named:
        return f"a timer{step}{due}"
    return f"{kind}{named}{child}{step}{due or since}"


def _more(rest: tuple[dict[str, Any], ...]) -> str:
    count = sum(wait.get("count", 1) for wait in rest)
    return f" and {count} more" if count else ""


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
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
