"""How things look: tables and colours on a terminal, plain tab-separated lines and JSON elsewhere.

What comes from a log was written by others: control characters in it are shown, never sent to the terminal.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from ergon.executor.sentences import writable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

STATUS_STYLES: Final = {
    "pending": "cyan",
    "running": "blue",
    "suspended": "default",
    "paused": "yellow",
    "parked": "bold magenta",
    "completed": "green",
    "failed": "bold red",
    "cancelled": "dim",
    "alive": "green",
    "draining": "yellow",
    "dead": "bold red",
    "stopped": "dim",
}
"""Colour is never the only sign: the word itself is always there."""


COLUMN_WIDTH: Final = 40
"""A column may be narrower only when all of its texts are."""


def console(*, stderr: bool = False) -> Console:
    """A console that prints text as it is: no markup, no highlighting."""
    from rich.console import Console

    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def is_terminal() -> bool:
    """True when a person reads the output."""
    return sys.stdout.isatty()


def note(line: str) -> None:
    """Say something beside the result."""
    print(f"ergon: {line}", file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print JSON that any reader takes, whatever the terminal's encoding."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, indent=2, ensure_ascii=not utf8))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, styled: str | None = None) -> None:
    """Print rows: aligned on a terminal, tab-separated and uncut elsewhere. `styled` names the status column."""
    if not is_terminal():
        for row in (columns, *rows):
            print("\t".join(clean(cell) for cell in row))
        return
    console().print(rich_table(columns, rows, styled=styled))


def rich_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, styled: str | None = None
) -> RenderableType:
    """The table as rich shows it."""
    from rich.table import Table
    from rich.text import Text

    found = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    cleaned = [[clean(cell) for cell in row] for row in rows]
    for number, column in enumerate(columns):
        # The last column holds the longest texts and gives way first.
        widest = max((len(row[number]) for row in cleaned), default=0)
        least = min(max(widest, len(column)), COLUMN_WIDTH) if number < len(columns) - 1 else None
        found.add_column(column, overflow="ellipsis", no_wrap=True, min_width=least)
    status = columns.index(styled) if styled is not None else -1
    for row in cleaned:
        cells = [Text(cell) for cell in row]
        if status >= 0:
            cells[status].stylize(STATUS_STYLES.get(row[status], "default"))
        found.add_row(*cells)
    return found


def clean(text: str) -> str:
    """The text with every character escaped that a terminal would act on instead of showing."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") else _escape(char)
        for char in text
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()


def cut(text: str, width: int) -> str:
    """The text, ended with an ellipsis where it is longer."""
    return text if len(text) <= width else text[: width - 1] + "…"


def iso(at: float | None) -> str | None:
    """A time for programs: ISO 8601, UTC, microseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(writable(at), UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def local_time(at: float | None) -> str:
    """A time for people, in this machine's time zone."""
    if at is None:
        return "-"
    return datetime.fromtimestamp(writable(at)).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def ago(seconds: float) -> str:
    """An age for people, in one unit: `850 ms`, `12 s`, `3 min`, `5 h`, `9 d`."""
    if seconds < 0:
        return f"in {ago(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
