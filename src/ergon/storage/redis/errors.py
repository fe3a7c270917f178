"""What redis-py and the server say, in Ergon's words: translated in this one place. No message has a password."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import redis.exceptions as said

from ergon.errors import LogBusy, LogDamaged, LogFull, LogRefused, StoreError

_NOT_DONE: Final = (
    "BUSY",
    "LOADING",
    "MASTERDOWN",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "READONLY",
    "NOREPLICAS",
)
"""The server did nothing, and may do it later."""
_UNCONFIRMED: Final = (
    "UNBLOCKED",
    "WAIT cannot be used with replica",
    "WAITAOF cannot be used with replica",
)
"""What a server says in place of a confirmation when it has become a replica, before it was asked or meanwhile."""
_ROOM: Final = ("OOM", "MISCONF")


_IN_SCRIPT: Final = re.compile(r"^Error running script.* -([A-Z]+) ", re.DOTALL)
"""How Redis 6 tells an error inside a script: after the script's name and line."""


class CutOff(said.ConnectionError):
    """A connection was closed here while somebody waited on it, because its server has become a replica."""


class AtReplica(said.ReadOnlyError):
    """In place of an answer of a server that says beside it that it is a replica, and may just have become one."""


def is_cut(error: object) -> bool:
    """Tell whether the connection broke, or no answer came in time."""
    if isinstance(error, said.AuthenticationError | said.AuthorizationError):
        return False
    return isinstance(error, said.ConnectionError | said.TimeoutError | OSError | said.SlotNotCoveredError)


def is_lost(error: object) -> bool:
    """Tell whether nobody knows what became of a write: no answer came, or no confirmation.

    What a master did that has become a replica may not have reached the one in its place.
    """
    return is_cut(error) or isinstance(error, AtReplica) or _is_unconfirmed(error)


def is_replica(error: object) -> bool:
    """Tell whether the server says that it is a replica: whoever asks again should look where the master is now."""
    return (
        isinstance(error, said.ReadOnlyError | CutOff)
        or _is_unconfirmed(error)
        or (isinstance(error, said.ResponseError) and _code(error) == "READONLY")
    )


def _is_unconfirmed(error: object) -> bool:
    return isinstance(error, said.ResponseError) and str(error).startswith(_UNCONFIRMED)


def is_not_done(error: object) -> bool:
    """Tell whether the server refused for the moment, having done nothing."""
    if isinstance(
        error,
        said.NoScriptError | said.BusyLoadingError | said.ReadOnlyError | said.TryAgainError | said.ClusterDownError
        | said.MovedError | said.AskError,
    ):  # fmt: skip
        return True
    if not isinstance(error, said.ResponseError):
        return False
    return _code(error) in _NOT_DONE or "non local key in a cluster node" in str(error)


def _code(error: object) -> str:
    """The word by which the server tells what kind of error it is."""
    text = str(error)
    found = _IN_SCRIPT.match(text)
    return found[1] if found is not None else text.split(" ", 1)[0]


_TLS: Final = ("rediss:", "valkeys:")
_MEANINGS: Final[tuple[tuple[Callable[[BaseException, str], bool], type[StoreError], str], ...]] = (
    (
        lambda error, _: isinstance(
            error, said.AuthenticationError | said.AuthenticationWrongNumberOfArgsError
        ),
        LogRefused,
        "the server takes neither this user nor this password; correct the URL",
    ),
    (
        lambda error, _: isinstance(error, said.NoPermissionError | said.AuthorizationError),
        LogRefused,
        "the server's access list refuses this user a command, key or channel; grant what the guide on Redis lists",
    ),
    (
        lambda error, _: is_replica(error),
        LogBusy,
        "the server is a replica by now and takes no writes; they go on once its address leads to a master",
    ),
    (
        lambda error, _: is_cut(error),
        LogBusy,
        "the server cannot be reached; check that it runs, and the URL",
    ),
    (
        lambda error, _: isinstance(error, said.OutOfMemoryError) or _code(error) in _ROOM,
        LogFull,
        "the server has no room, nothing acknowledged was lost; give it memory or disk",
    ),
    (
        lambda _, words: "DB index is out of range" in words,
        LogRefused,
        "the server has no such database; a cluster has only database 0",
    ),
    (
        lambda _, words: "WRONGTYPE" in words,
        LogDamaged,
        "a key is not what this log writes; restore a backup, or mend it",
    ),
    (
        lambda error, _: is_not_done(error),
        LogBusy,
        "the server takes no writes at the moment; try again",
    ),
    (lambda *_: True, StoreError, "the server answers"),
)


def translate(error: BaseException, where: str) -> BaseException:
    """Return what to raise instead of `error`, about the log at `where`."""
    if not isinstance(error, said.RedisError | said.RedisClusterException | OSError):
        return error
    words = _words(error)
    kind, sentence = next((kind, sentence) for means, kind, sentence in _MEANINGS if means(error, words))
    if is_cut(error) and not is_replica(error) and where.startswith(_TLS):
        sentence += f" ({where.partition('s:')[0]}:// where a server speaks no TLS)"
    return kind(f"log {where}: {sentence}: {words}")


def _words(error: BaseException) -> str:
    """The error's first line; of a script's error the server's sentence, not the script's place."""
    lines = str(error).splitlines()
    text = lines[0] if lines else type(error).__name__
    return text.partition(" script: ")[0][:300]
