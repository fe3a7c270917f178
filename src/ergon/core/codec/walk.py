"""Walk a value part by part, with a path such as `$.items[3].price` for each part (`paths.py`).

Used only after something went wrong or might have: the fast road never comes here. Walks keep their own stack, so
a deep value cannot overflow Python's, and never call `repr`, `str` or `==` of a value: that is code of the user's
which may raise, and messages must not show secrets.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from enum import Enum
from functools import lru_cache
from operator import attrgetter
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, Final

from ergon.core.codec.paths import ANY_MEMBER, Index, Key, Name, Segment, spell
from ergon.core.codec.shape import Shape

DEPTH_MAX: Final = 900
"""Parts nested deeper than this are reported as too deep; JSON readers elsewhere stop near here too."""
PARTS_MAX: Final = 1_000_000
"""Parts looked at before a walk gives up, so that a message about a huge value does not take minutes."""

SCALARS: Final = frozenset({type(None), bool, int, str})

type_of = type
"""The class an object really has; `__class__` may lie."""


def type_name(kind: type) -> str:
    """The qualified name of a class, without `builtins.`."""
    try:
        module, name = kind.__module__, kind.__qualname__
    except AttributeError:  # a metaclass that hides them
        return "object"
    return name if module == "builtins" else f"{module}.{name}"


def name_of(value: object) -> str:
    """The qualified name of a value's class."""
    return type_name(type_of(value))


class Link:
    """Where a part is: a chain back to the root, so that a path is only spelled when it is needed."""

    __slots__ = ("depth", "parent", "segment", "value_id")

    def __init__(self, parent: Link | None, segment: Segment | None, value_id: int) -> None:
        self.parent, self.segment, self.value_id = parent, segment, value_id
        self.depth: int = 0 if parent is None else parent.depth + 1

    def path(self, shape: Shape | None = None) -> str:
        """Spell the path, such as `$.items[3].price`; `shape` is the declared one of the root."""
        segments: list[Segment] = []
        link: Link | None = self
        while link is not None:
            if link.segment is not None:
                segments.append(link.segment)
            link = link.parent
        return spell(reversed(segments), shape)

    def holds(self, value_id: int) -> bool:
        """Tell whether an object is one of the parents: the value contains itself."""
        link: Link | None = self
        while link is not None:
            if link.value_id == value_id:
                return True
            link = link.parent
        return False


def field_names(kind: type) -> tuple[str, ...] | None:
    """The fields of a dataclass, attrs class, msgspec Struct or pydantic model; None for any other class."""
    struct = getattr(kind, "__struct_fields__", None)
    if struct is not None:
        return tuple(struct)
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    attrs = getattr(kind, "__attrs_attrs__", None)
    if attrs is not None:
        return tuple(field.name for field in attrs)
    if is_pydantic_model(kind):
        return tuple(getattr(kind, "model_fields", ()))
    return None


def is_pydantic_model(kind: object) -> bool:
    """Tell whether a class is a pydantic (2.x) model, without importing pydantic."""
    pydantic = sys.modules.get("pydantic")
    model = getattr(pydantic, "BaseModel", None)
    return isinstance(model, type) and isinstance(kind, type) and issubclass(kind, model)


_UNSET: Final = object()


def parts_of(value: object) -> Iterator[tuple[Segment, object]]:
    """Each part directly inside a value, with its path segment. A scalar has none."""
    kind = type_of(value)
    if isinstance(value, Mapping):
        for index, (key, part) in enumerate(value.items()):
            yield Key(index, key), part
    elif isinstance(value, tuple) and hasattr(kind, "_fields"):
        for name, part in zip(getattr(kind, "_fields", ()), value, strict=False):
            yield Name(name), part
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield Index(index), part
    elif isinstance(value, set | frozenset):
        for part in value:
            yield ANY_MEMBER, part
    elif not isinstance(value, Enum | type):
        yield from _fields_of(value)


def _fields_of(value: object) -> Iterator[tuple[Segment, object]]:
    for name in field_names(type_of(value)) or ():
        part = getattr(value, name, _UNSET)
        if part is not _UNSET:
            yield Name(name), part
    extra = getattr(value, "__pydantic_extra__", None)
    if isinstance(extra, dict):
        yield from parts_of(extra)


def find(
    value: object, wrong: Callable[[Any, Link], str | None], shape: Shape | None = None
) -> tuple[str, str] | None:
    """Return the path and the fault of the first part, in reading order, that `wrong` names a fault for.

    `shape`: the declared one of the value; a path names the keys that it declares.
    """
    stack = [(value, Link(None, None, id(value)))]
    looked_at = 0
    while stack:
        part, link = stack.pop()
        fault = wrong(part, link)
        if fault is not None:
            return link.path(shape), fault
        looked_at += 1
        if type_of(part) in SCALARS:
            continue
        if link.depth >= DEPTH_MAX or looked_at > PARTS_MAX:
            return link.path(
                shape
            ), "nested too deeply" if looked_at <= PARTS_MAX else "too large to look through"
        inner = [(child, Link(link, segment, id(child))) for segment, child in parts_of(part)]
        inner.reverse()
        stack.extend(inner)
    return None


def all_finite(value: Any) -> bool:
    """Tell whether a value holds no NaN or infinity. `RecursionError` when nested too deeply."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        parts = value.values()
    elif kind is list or kind is tuple:
        parts = value
    elif (fields := _fields_getter(kind)) is not None:
        try:
            parts = fields(value)
        except AttributeError:  # a field was never set
            parts = [part for _segment, part in parts_of(value)]
    elif isinstance(value, float):
        return math.isfinite(value)
    else:
        parts = [part for _segment, part in parts_of(value)]
    for part in parts:  # noqa: SIM110  # half the time of a generator
        if type(part) not in SCALARS and not all_finite(part):
            return False
    return True


def _make_fields_getter(kind: type) -> Callable[[Any], Any] | None:
    """Returns all fields of an object at once, for classes where they are plain attributes."""
    names = None if is_pydantic_model(kind) else field_names(kind)
    if not names:
        return None
    # The last one twice, as a single name would give the bare value instead of a tuple.
    return attrgetter(*names, names[-1])


_fields_getter: Callable[[type], Callable[[Any], Any] | None] = lru_cache(maxsize=4096)(_make_fields_getter)


def _not_finite(part: object, _link: Link) -> str | None:
    if isinstance(part, float) and not math.isfinite(part):
        return "NaN and infinity have no JSON form; use None, a str or Decimal instead"
    return None


def find_not_finite(value: object, shape: Shape | None = None) -> tuple[str, str] | None:
    """Find a float that JSON cannot hold, which the encoder would turn into null without a word."""
    try:
        if all_finite(value):
            return None
    except RecursionError:
        pass
    return find(value, _not_finite, shape)


def find_unencodable(
    value: object, encode_leaf: Callable[[object], bytes], shape: Shape | None = None
) -> tuple[str, str] | None:
    """Find the first part that cannot be encoded. `encode_leaf` is tried on parts that have no parts."""

    def wrong(part: object, link: Link) -> str | None:
        kind = type_of(part)
        if (
            link.parent is not None
            and kind not in SCALARS
            and link.parent.holds(id(part))
            and any(parts_of(part))
        ):
            return f"{type_name(kind)} contains itself"
        if isinstance(part, Mapping) and (fault := _bad_key(part, encode_leaf)):
            return fault
        if next(parts_of(part), None) is not None:
            return None
        try:
            encode_leaf(part)
        except Exception:  # noqa: BLE001  # whatever a user's hook raises: the part is not encodable
            return why_not(part)
        return None

    return find(value, wrong, shape)


def _bad_key(mapping: Mapping[Any, object], encode_leaf: Callable[[object], bytes]) -> str | None:
    for key in mapping:
        if type_of(key) is str and key.isascii():
            continue
        if isinstance(key, float) and not math.isfinite(key):
            return "NaN or infinity as a key has no JSON form"
        try:
            encode_leaf({key: None})
        except Exception:  # noqa: BLE001  # as above
            if isinstance(key, str):
                return "a key that is a str with lone surrogates is not text, so it has no JSON form"
            return f"a key of type {name_of(key)} has no JSON form; use str, int or UUID keys"
    return None


def why_not(part: object) -> str:
    """Say of a part without parts of its own that it cannot be encoded, and what to use instead."""
    kind = type_of(part)
    if kind is int:
        return "an int of more than 4300 digits has no JSON form"
    if isinstance(part, str):
        return "a str with lone surrogates is not text, so it has no JSON form"
    if inspect.iscoroutine(part):
        return "a coroutine has no JSON form; await it, and use what it gives"
    if isinstance(part, Iterator):
        return f"{type_name(kind)} has no JSON form and can be read only once; use a list of what it gives"
    if isinstance(part, FunctionType | BuiltinFunctionType | MethodType | AsyncGenerator):
        return f"{type_name(kind)} is code and has no JSON form; use the data that it would be called with or give"
    return (
        f"{type_name(kind)} has no JSON form; use a dataclass, or the plain data you need from it "
        "(an id, a path, a dict)"
    )
