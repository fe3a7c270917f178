"""`open_log`: from a URL to a log. The only place that names the stores."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import unquote

from ergon.errors import LogRefused
from ergon.storage.log import ExecutionLog

DEFAULT_URL: Final = "ergon.db"
LEVELS: Final = ("D0", "D1", "D2", "D3", "D4")


def open_log(url: str | None = None) -> ExecutionLog:
    """The log that a URL names, not connected yet: `async with open_log(url) as log:`.

    url: a path (`orders.db`), `sqlite:orders.db`, `sqlite:///absolute/path`, or `memory:`. Default: the environment's ERGON_LOG, else
    `ergon.db` in the current directory. Raises `LogRefused` for a URL no store knows.
    """
    url = url if url is not None else os.environ.get("ERGON_LOG") or DEFAULT_URL
    from ergon.storage.sqlite import InMemoryExecutionLog, SqliteExecutionLog

    scheme, colon, rest = url.partition(":")
    if not colon or len(scheme) == 1 or os.sep in scheme:  # a path; one letter is a Windows drive
        return SqliteExecutionLog(url)
    if scheme.lower() == "memory":
        return InMemoryExecutionLog()
    if scheme.lower() in ("sqlite", "file"):
        return SqliteExecutionLog(unquote(rest.removeprefix("//")))
    raise LogRefused(f"no store is known for {scheme}: URLs. Give a file path, sqlite:///path or memory:")


async def check_level(log: ExecutionLog, require: str) -> None:
    """Raise `LogRefused` when the log's live settings survive less than `require` (D1 to D4)."""
    if require not in LEVELS:
        raise LogRefused(f"require={require!r}: the classes are {', '.join(LEVELS)}")
    found = await log.durability()
    if LEVELS.index(found.level) < LEVELS.index(require):
        raise LogRefused(
            f"the log {log.url} is {found.level}, but {require} is required: {'; '.join(found.notes) or 'see its settings'}"
        )
