"""`open_log`: from a URL to a log. The only place that names the stores."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import unquote

from ergon.core.durability import check_class
from ergon.errors import LogRefused
from ergon.storage.log import ExecutionLog

DEFAULT_URL: Final = "ergon.db"

MEMORY_URL: Final = "memory:"
"""The URL of every log that only its own process can see."""


def open_log(url: str | None = None, *, require: str | None = None, create: bool = True) -> ExecutionLog:
    """Find the log that a URL names; it is not connected yet: use it with `async with`.

    url: a path (`orders.db`), `sqlite:orders.db`, `sqlite:///absolute/path`, `memory:`,
    `postgresql://user@host/database`, or `redis://host:6379/0` (also `rediss:`, `valkey:`, `valkeys:` and `unix:`).
    Default: the environment's ERGON_LOG, else `ergon.db` in the current directory.
    require: connecting raises `LogRefused` when the log's live settings survive less than this durability class,
    D1 (worker crashes) to D4 (loss of the machine). Default: any.
    create: make a new log where there is none. False: connecting raises `LogRefused` then, so that a mistyped URL never
    becomes an empty log; on PostgreSQL it changes no tables either, for a role that may not.

    Raises `LogRefused` for a URL no store knows, and for a class that does not exist.
    """
    check_class(require)
    url = url if url is not None else os.environ.get("ERGON_LOG") or DEFAULT_URL
    from ergon.storage.sqlite import SqliteExecutionLog

    scheme, colon, rest = url.partition(":")
    if not colon or len(scheme) == 1 or os.sep in scheme:  # a path; one letter is a Windows drive
        return SqliteExecutionLog(url, require=require, create=create)
    if scheme.lower() == "memory":
        return SqliteExecutionLog(":memory:", require=require)
    if scheme.lower() in ("sqlite", "file"):
        return SqliteExecutionLog(unquote(rest.removeprefix("//")), require=require, create=create)
    if scheme.lower() in ("postgresql", "postgres"):
        from ergon.storage.postgres import PostgresExecutionLog

        # Whoever runs flows decides what their log must survive; one who only finds it there takes it as it is.
        least = require if create or require is not None else "D1"
        return PostgresExecutionLog(url, require=least, migrate=create)
    if scheme.lower() in ("redis", "rediss", "valkey", "valkeys", "unix"):
        from ergon.storage.redis import RedisExecutionLog

        return RedisExecutionLog(url, require=require, create=create)
    raise LogRefused(
        f"no store is known for {scheme}: URLs. Give a file path, sqlite:///path, postgresql://host/database, "
        "redis://host or memory:"
    )
