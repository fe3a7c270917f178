"""`open_log`: from a URL to a log. The only place that names the stores."""

from __future__ import annotations

import os
from typing import Final
from urllib.parse import unquote

from ergon.core.durability import check_class
from ergon.core.namespaces import check_namespace, split_namespace
from ergon.errors import LogRefused
from ergon.storage.log import ExecutionLog

DEFAULT_URL: Final = "ergon.db"

MEMORY_URL: Final = "memory:"
"""The URL of every log that only its own process can see, but for its namespace."""

_POSTGRES: Final = ("postgresql", "postgres")
_REDIS: Final = ("redis", "rediss", "valkey", "valkeys", "unix")


def open_log(
    url: str | None = None, *, namespace: str | None = None, require: str | None = None, create: bool = True
) -> ExecutionLog:
    """Find the log that a URL names; it is not connected yet: use it with `async with`.

    url: a path (`orders.db`), `sqlite:orders.db`, `sqlite:///absolute/path`, `memory:`,
    `postgresql://user@host/database`, or `redis://host:6379/0` (also `rediss:`, `valkey:`, `valkeys:` and `unix:`).
    Default: the environment's ERGON_LOG, else `ergon.db` in the current directory.
    namespace: a log of its own at the same place, such as one for each tenant: no flow, id, worker or queue of one is
    seen by another. Default: the URL's option `?namespace=acme`, else the environment's ERGON_NAMESPACE, else none.
    Empty: none, whatever the others say.
    require: connecting raises `LogRefused` when the log's live settings survive less than this durability class,
    D1 (worker crashes) to D4 (loss of the machine). Default: any.
    create: make a new log where there is none. False: connecting raises `LogRefused` then, so that a mistyped URL never
    becomes an empty log; on PostgreSQL it changes no tables either, for a role that may not.

    Raises `LogRefused` for a URL no store knows, and for a class that does not exist; `InvalidName` for a namespace
    that some log could not keep apart.
    """
    check_class(require)
    url, in_url = split_namespace(_url(url))
    namespace = check_namespace(_first(namespace, in_url, os.environ.get("ERGON_NAMESPACE")))
    scheme, path = _store(url)
    if scheme in _POSTGRES:
        from ergon.storage.postgres import PostgresExecutionLog

        # Whoever runs flows decides what their log must survive; one who only finds it there takes it as it is.
        least = require if create or require is not None else "D1"
        return PostgresExecutionLog(url, namespace=namespace, require=least, migrate=create)
    if scheme in _REDIS:
        from ergon.storage.redis import RedisExecutionLog

        return RedisExecutionLog(url, namespace=namespace, require=require, create=create)
    from ergon.storage.sqlite import SqliteExecutionLog

    return SqliteExecutionLog(path, namespace=namespace, require=require, create=create)


async def list_namespaces(url: str | None = None) -> list[str]:
    """Name the namespaces there are at the place that a URL names (as for `open_log`), sorted; makes nothing.

    Whatever namespace the URL or the environment names is left out of account. On Redis this goes through all keys of
    the server.

    Raises `LogRefused` for a URL no store knows, and when the server refuses; `LogBusy` when it cannot be reached.
    """
    url, _ = split_namespace(_url(url))
    scheme, path = _store(url)
    if scheme in _POSTGRES:
        from ergon.storage.postgres import namespaces as on_postgres

        return await on_postgres.present(url)
    if scheme in _REDIS:
        from ergon.storage.redis import namespaces as on_redis

        return await on_redis.present(url)
    if scheme == "memory":
        return []
    import asyncio
    from pathlib import Path

    from ergon.storage.sqlite import namespaces as on_sqlite

    return await asyncio.to_thread(on_sqlite.present, Path(path))


def _url(given: str | None) -> str:
    return given if given is not None else os.environ.get("ERGON_LOG") or DEFAULT_URL


def _first(*names: str | None) -> str:
    return next((name for name in names if name is not None), "")


def _check_no_option(path: str) -> None:
    """Raise `LogRefused` where a file's name ends like an option: a mistyped one would be another, empty log."""
    name, _, value = path.rpartition("?")[2].partition("=")
    if "?" in path and value and name.isidentifier():
        raise LogRefused(
            f"log {path}: a file has no option {name!r}, only ?namespace=NAME. When this is really the file's name, "
            "write sqlite: before it, and %3F for the question mark"
        )


def _check_no_password(path: str) -> None:
    """Raise `LogRefused` where a file's name looks like a broken URL. Messages show paths, and never a password."""
    drive = os.path.splitdrive(path)[0]
    user, at, _ = path.removeprefix(drive).rpartition("@")
    if at and ":" in user and not os.path.exists(path):  # noqa: PTH110 - pathlib would cost more than all the rest
        raise LogRefused(
            "the log's URL has a user and a password, but is not written as scheme://user:password@host/database with "
            "postgresql or redis for the scheme. When it is really the name of a new file, write sqlite: before it, "
            "and %40 for the at sign"
        )


def _store(url: str) -> tuple[str, str]:
    """A URL's scheme, and its path where that is a file's. Raises `LogRefused`."""
    scheme, colon, rest = url.partition(":")
    if not colon or len(scheme) == 1 or os.sep in scheme:  # a path; one letter is a Windows drive
        _check_no_password(url)
        _check_no_option(url)
        return "sqlite", url
    scheme = scheme.lower()
    if scheme == "memory":
        return scheme, ":memory:"
    if scheme in ("sqlite", "file"):
        _check_no_password(rest)
        _check_no_option(rest)
        return "sqlite", unquote(rest.removeprefix("//"))
    if scheme in (*_POSTGRES, *_REDIS):
        return scheme, ""
    raise LogRefused(
        f"no store is known for {scheme}: URLs. Give a file path, sqlite:///path, postgresql://host/database, "
        "redis://host or memory:"
    )
