"""The arguments of a usual call, all given by position and each of the very class that is declared, without a detour.

Any other call goes the long way (`arguments.py`), which comes to the same and has the words for what does not fit.
"""

from __future__ import annotations

from typing import Any

from ergon.core.codec import MISSING, Hints, decoder_for, encode
from ergon.core.codec.objects import raw_members
from ergon.errors import EncodingError


class PlainArguments:
    """Of one flow whose parameters can all be given by position."""

    __slots__ = ("_classes", "_names", "_reads")

    def __init__(self, names: tuple[str, ...], hints: Hints) -> None:
        """Raises `UsageError` when an annotation cannot be read back from JSON."""
        declared = [hints.params.get(name, MISSING) for name in names]
        self._names = names
        self._classes = tuple(declared)
        self._reads = [(name, decoder_for(hint).read) for name, hint in zip(names, declared, strict=True)]

    def write(self, args: tuple[Any, ...]) -> str | None:
        """The input to store; None: the long way."""
        if tuple(map(type, args)) != self._classes and not self._fits(args):
            return None
        try:
            return encode(dict(zip(self._names, args)))  # noqa: B905  # as many; saying so again costs a third of it
        except EncodingError:
            return None

    def _fits(self, args: tuple[Any, ...]) -> bool:
        return len(args) == len(self._names) and all(
            declared is MISSING or type(value) is declared
            for value, declared in zip(args, self._classes, strict=True)
        )

    def read(self, text: str) -> tuple[Any, ...] | None:
        """The arguments in a stored input; None: the long way."""
        try:
            members = raw_members(text)
            if len(members) == len(self._reads):
                return tuple([read(members[name]) for name, read in self._reads])
        except Exception:  # noqa: BLE001, S110 - whatever it is, the long way meets it too and says so
            pass
        return None
