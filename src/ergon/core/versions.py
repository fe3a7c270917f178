"""Which versions of the code a worker runs: exact names, and ranges over dotted numbers.

A version is any name an application gives a deploy. Only names made of dotted numbers (`1`, `1.2`, `v1.2.0`) have an
order, so only they can lie in a range; `2026-05-01-a3f` or `2.0rc1` match by their exact name alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from operator import eq, ge, gt, le, lt, ne
from typing import Final

from msgspec import Struct

from ergon.core.names import check_name
from ergon.errors import UsageError

ANY: Final = "*"

_Key = tuple[int, ...]
_OPERATORS: Final[dict[str, Callable[[_Key, _Key], bool]]] = {
    ">=": ge, "<=": le, "==": eq, "!=": ne, ">": gt, "<": lt,
}  # fmt: skip
_BOUND: Final = re.compile(r"(>=|<=|==|!=|>|<)\s*(\S+)")
_DOTTED: Final = re.compile(r"v?([0-9]{1,18}(?:\.[0-9]{1,18}){0,9})", re.ASCII)


class Range(Struct, frozen=True):
    """Bounds that all hold, such as `>=1.2,<2`."""

    text: str
    bounds: tuple[tuple[str, _Key], ...]

    def matches(self, version: str) -> bool:
        """Tell whether a version lies within; False for one that is not dotted numbers."""
        key = _key(version)
        return key is not None and all(_OPERATORS[operator](key, bound) for operator, bound in self.bounds)


class VersionSet(Struct, frozen=True):
    """The versions a worker runs: any of its names, or inside any of its ranges.

    VersionSet.parse("1.4.2")             # this one
    VersionSet.parse(">=1.2,<2")          # a range: all bounds hold
    VersionSet.parse(["blue", ">=1.2"])   # any of these
    VersionSet.parse("*")                 # all of them
    """

    names: frozenset[str] = frozenset()
    ranges: tuple[Range, ...] = ()
    all: bool = False

    @classmethod
    def parse(cls, specs: str | Iterable[str]) -> VersionSet:
        """Read one spec, or several of which any may match. Raises `UsageError` for one that means nothing."""
        names, ranges, every = set[str](), list[Range](), False
        for spec in [specs] if isinstance(specs, str) else specs:
            _check_text(spec)
            if spec == ANY:
                every = True
            elif any(sign in spec for sign in "<>=!"):
                ranges.append(_parse_range(spec))
            elif "," in spec:
                raise UsageError(f"give several versions as a list, not as one text: {spec!r}")
            else:
                names.add(check_name("version", spec))
        return cls(frozenset(names), tuple(ranges), every)

    @property
    def is_exact(self) -> bool:
        """True when `names` alone says it all, so that a log can filter without knowing which versions exist."""
        return not self.ranges and not self.all

    def matches(self, version: str | None) -> bool:
        """Tell whether a flow of this version may run here. One without a version fits every worker."""
        if version is None or self.all or version in self.names:
            return True
        return any(each.matches(version) for each in self.ranges)

    def select(self, known: Iterable[str]) -> tuple[str, ...]:
        """The versions among `known` that match, in their order, each once."""
        return tuple(version for version in dict.fromkeys(known) if self.matches(version))

    def __str__(self) -> str:
        every = [ANY] if self.all else []
        return " or ".join([*every, *sorted(self.names), *(each.text for each in self.ranges)]) or "none"


def _check_text(spec: object) -> None:
    if not isinstance(spec, str) or not spec.strip():
        raise UsageError(f"a version must be a name or a range such as '>=1.2,<2', not {spec!r}")


def _parse_range(spec: str) -> Range:
    bounds = []
    for part in spec.split(","):
        match = _BOUND.fullmatch(part.strip())
        key = _key(match[2]) if match else None
        if match is None or key is None:
            raise UsageError(
                f"{part.strip()!r} in version range {spec!r} is not a bound such as '>=1.2': "
                "one of >= <= > < == != and dotted numbers"
            )
        bounds.append((match[1], key))
    return Range(",".join(part.strip() for part in spec.split(",")), tuple(bounds))


def _key(version: str) -> _Key | None:
    """The numbers of a dotted version without zeros at its end, as 1.2 and 1.2.0 are one place in the order."""
    match = _DOTTED.fullmatch(version)
    if match is None:
        return None
    numbers = [int(number) for number in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
