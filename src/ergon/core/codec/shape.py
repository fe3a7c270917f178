"""An annotation as a small tree: what kind of value stands where.

msgspec reads most annotations by itself. The tree is for what it cannot do: seeing parts that would be read back as
something else (`guard.py`), and unions of several dataclasses (`union.py`, `convert.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal

from msgspec import Struct, field

OBJECT: Final = "object"
ARRAY: Final = "array"
EVERY_KIND: Final = frozenset({"null", "bool", "int", "float", "str", ARRAY, OBJECT})


class Shape:
    """One place in an annotation."""

    __slots__ = ()

    @property
    def kinds(self) -> frozenset[str]:
        """The JSON kinds its values may be written as: null, bool, int, float, str, array, object."""
        return EVERY_KIND

    def inner(self) -> Iterator[Shape]:
        """The places directly inside."""
        yield from ()


class Anything(Shape, Struct, frozen=True, eq=False):
    """No declared type: plain JSON."""


class Leaf(Shape, Struct, frozen=True, eq=False):
    """A type that msgspec, or our hook, reads whole."""

    annotation: Any
    written_as: frozenset[str]

    @property
    def kinds(self) -> frozenset[str]:
        return self.written_as


class OddEnum(Shape, Struct, frozen=True, eq=False):
    """An Enum whose values are not all str or all int: told apart by their JSON text."""

    cls: type
    members: dict[bytes, Any]

    @property
    def kinds(self) -> frozenset[str]:
        return EVERY_KIND - {"null"}


class Items(Shape, Struct, frozen=True, eq=False):
    """list, set, frozenset or tuple[X, ...]."""

    make: Callable[[Any], Any]
    item: Shape

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({ARRAY})

    def inner(self) -> Iterator[Shape]:
        yield self.item


class Fixed(Shape, Struct, frozen=True, eq=False):
    """tuple[X, Y]."""

    items: tuple[Shape, ...]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({ARRAY})

    def inner(self) -> Iterator[Shape]:
        yield from self.items


class Table(Shape, Struct, frozen=True, eq=False):
    """dict[K, V]."""

    key: Shape
    value: Shape

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({OBJECT})

    def inner(self) -> Iterator[Shape]:
        yield from (self.key, self.value)


class Choice(Shape, Struct, frozen=True, eq=False):
    """A union."""

    members: tuple[Shape, ...]

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset[str]().union(*(member.kinds for member in self.members))

    def inner(self) -> Iterator[Shape]:
        yield from self.members


class Field(Struct, frozen=True, eq=False):
    """One field of a record."""

    name: str
    written: str
    """Its name in JSON."""
    shape: Shape
    required: bool
    make_default: Callable[[Any], Any] | None = None
    """Given the object being made, the value when JSON has none."""
    tags: frozenset[Any] | None = None
    """The values of a `Literal`, which tell the members of a union apart."""


Style = Literal["dataclass", "attrs", "struct", "typed dict", "named tuple", "model"]


class Record(Shape, Struct, eq=False):
    """A class with named fields. Filled in after it is made, as a class may contain itself."""

    cls: Any
    style: Style
    fields: tuple[Field, ...] = ()
    tag: tuple[str, Any] | None = None
    """The tag field and tag of a tagged msgspec.Struct."""
    names: frozenset[str] = field(default_factory=frozenset)
    """The names of the fields, in Python."""

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({ARRAY if self.style == "named tuple" else OBJECT})

    def inner(self) -> Iterator[Shape]:
        yield from (each.shape for each in self.fields)


def every_shape(root: Shape) -> Iterator[Shape]:
    """The root and everything inside it, each once."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        shape = waiting.pop()
        if id(shape) not in seen:
            seen.add(id(shape))
            yield shape
            waiting.extend(shape.inner())
