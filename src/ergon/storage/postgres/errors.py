"""PostgreSQL's errors in Ergon's words, translated in this one place.

What decides is the five-character code (SQLSTATE). A server's message is shown only where it cannot quote a value: a
row's content must not reach a log line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ergon.errors import (
    EncodingError,
    ErgonError,
    LogBusy,
    LogDamaged,
    LogFull,
    LogRefused,
    LogTooNew,
    StoreError,
)

_CUT: Final = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04", "53300", "25006"})
"""The session ended or cannot be had at the moment, or leads to a server that only reads: dial again."""
_AGAIN: Final = frozenset({"40001", "40P01", "55P03", "57014", "0A000"})
"""Repeat the transaction: two stood in each other's way, or the tables changed under a prepared statement."""
_QUOTES: Final = ("22", "23")
"""Classes whose messages quote values."""


def code_of(error: BaseException) -> str:
    """The SQLSTATE, empty where the server did not say anything."""
    return str(getattr(error, "sqlstate", None) or "")


def is_cut(error: BaseException) -> bool:
    """Tell whether the connection, not the statement, is the reason: nobody knows what became of the statement."""
    if isinstance(error, OSError | EOFError | TimeoutError):  # TimeoutError: the server is silent
        return True
    code = code_of(error)
    if code:
        return code in _CUT or code.startswith("08")
    kind = type(error)
    # The driver's own words for a connection that is no more; its DataError is about a value.
    return kind.__module__.startswith("asyncpg") and kind.__name__ in (
        "InterfaceError",
        "InternalClientError",
        "ProtocolError",
    )


def is_again(error: BaseException) -> bool:
    """Tell whether the same transaction may well succeed at once."""
    return code_of(error) in _AGAIN


def is_of_one_part(error: BaseException) -> bool:
    """Tell whether one part of a batch is the reason: its data."""
    if isinstance(error, UnicodeError | OverflowError | TypeError) or type(error).__name__ == "DataError":
        return True
    return code_of(error)[:2] in ("22", "23", "54")


def _has(*codes: str) -> Callable[[BaseException], bool]:
    return lambda error: code_of(error).startswith(codes)


def said(error: BaseException) -> str:
    """What an error says that may be shown."""
    code = code_of(error)
    if not code:
        text = str(error) or type(error).__name__
        return "the driver refused a value" if type(error).__name__ == "DataError" else text.splitlines()[0]
    name = type(error).__name__
    return f"{name} ({code})" if code[:2] in _QUOTES else f"{_first_line(error)} ({code})"


def translate(error: BaseException, where: str) -> BaseException:
    """Return what to raise instead of `error`, about the log at `where`."""
    if isinstance(error, ErgonError):
        return error
    if getattr(error, "constraint_name", None) == TOO_OLD:
        return LogTooNew(
            f"log {where} was given a newer schema while it was open, which this Ergon cannot use; upgrade this process"
        )
    code, words = code_of(error), said(error)
    for applies, kind, sentence in _KINDS:
        if applies(error):
            return kind(f"log {where}: {sentence}: {words}")
    return StoreError(f"log {where}: {words}") if code else error


def not_opened(error: BaseException, where: str) -> BaseException:
    """Say why a log could not be connected, and what to change."""
    if isinstance(error, ErgonError):
        return error
    code, words = code_of(error), said(error)
    if code in _OPENING:
        kind, sentence = _OPENING[code]
        return kind(f"log {where}: {sentence}: {words}")
    if code == "08P01" and "startup parameter" in words:
        return LogRefused(
            f"log {where}: a pooler stands before the server; add pgbouncer=1 to the URL, and leave out options that "
            f"it does not know: {words}"
        )
    if isinstance(error, FileNotFoundError):
        return LogBusy(
            f"log {where}: a file of the connection is not there; check that the server runs and its socket's folder "
            "(host=), or the certificates (sslrootcert=, sslcert=, sslkey=)"
        )
    if isinstance(error, TimeoutError):
        return LogBusy(f"log {where}: no answer from the server; check the host, the port and firewalls")
    if is_cut(error):
        return LogBusy(
            f"log {where}: cannot be reached; check host and port, and that the server runs: {words}"
        )
    if isinstance(error, ValueError) and not is_of_one_part(error):  # the driver's, about an option
        # Any other ValueError may quote what it was given, such as a password.
        told = words if type(error).__name__ == "ClientConfigurationError" else type(error).__name__
        return LogRefused(f"log {where}: its URL has an option that does not fit: {told}")
    return translate(error, where)


TOO_OLD: Final = "landed_for"
"""The constraint that a migration leaves for code which it cannot serve; see `migrations.py`."""


_KINDS: Final[tuple[tuple[Callable[[BaseException], bool], type[Exception], str], ...]] = (
    (is_cut, LogBusy, "the server could not be reached; nothing acknowledged was lost, try again"),
    (is_again, LogBusy, "other transactions stood in the way and nothing was written; try again"),
    (_has("53"), LogFull, "the server has no room, nothing acknowledged was lost; free some"),
    (_has("42501"), LogRefused, "the role may not do this; grant it the rights"),
    (_has("42P01", "42703", "3F000"), LogRefused, "its tables are missing or not this version's"),
    (_has("54"), EncodingError, "names or keys are together longer than PostgreSQL can index"),
    (is_of_one_part, EncodingError, "a value cannot be kept; text must be valid Unicode without U+0000"),
    (_has("XX"), LogDamaged, "the server reports damage; look at its own log, restore a backup"),
)
_LOGIN: Final = (LogRefused, "the server refused the login; check the user, its password and pg_hba.conf")
_OPENING: Final[dict[str, tuple[type[Exception], str]]] = {
    "28000": _LOGIN,
    "28P01": _LOGIN,
    "3D000": (LogRefused, "there is no such database; create it first"),
    "42704": (
        LogRefused,
        "its URL has an option that neither the driver nor the server knows; correct it or leave it out",
    ),
    "42501": (LogRefused, "the role lacks rights"),
    "53300": (LogBusy, "the server takes no more connections; raise max_connections, or use pgbouncer"),
}


def _first_line(error: Any) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
