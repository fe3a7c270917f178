"""Does a value read back as itself? What msgspec would change without a word is found here, before it is written.

Four things: a part without a declared type that is not plain JSON; an object of another class whose extra fields would
be lost; keys that a declared class does not know; a time zone whose offset has seconds, which RFC 3339 cannot hold.
Guards are built once for each annotation, and only for those that need one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

from ergon.core.codec.paths import key_place, placed
from ergon.core.codec.plain import explain_plain, is_plain
from ergon.core.codec.shape import (
    ARRAY,
    EVERY_KIND,
    OBJECT,
    Anything,
    Choice,
    Field,
    Fixed,
    Items,
    Leaf,
    Record,
    Shape,
    Table,
    every_shape,
)
from ergon.core.codec.walk import field_names, name_of, type_name
from ergon.errors import EncodingError

Guard = Callable[[Any], bool]


def guard_of(shape: Shape) -> Guard | None:
    """Return a quick check that a value survives its trip, or None where there is nothing to check."""
    if not any(isinstance(each, Anything | Record | Table) or _is_timed(each) for each in every_shape(shape)):
        return None
    return _Builder().guard(shape)


class _Builder:
    """Builds guards, with room for shapes that contain themselves."""

    def __init__(self) -> None:
        self._records: dict[int, Guard] = {}

    def guard(self, shape: Shape) -> Guard | None:
        if isinstance(shape, Anything):
            return is_plain
        if _is_timed(shape):
            return _has_whole_minutes
        if isinstance(shape, Items):
            inner = self.guard(shape.item)
            return (
                None
                if inner is None
                else lambda value: not isinstance(value, _MANY) or all(map(inner, value))
            )
        if isinstance(shape, Fixed):
            return self._fixed([self.guard(each) for each in shape.items])
        if isinstance(shape, Table):
            return self._table(shape)
        if isinstance(shape, Choice):
            return self._choice(shape)
        return self._record(shape) if isinstance(shape, Record) else None

    def _fixed(self, guards: list[Guard | None]) -> Guard | None:
        some = [(index, guard) for index, guard in enumerate(guards) if guard is not None]
        if not some:
            return None

        def fits(value: Any) -> bool:
            if not isinstance(value, list | tuple) or len(value) != len(guards):
                return True  # another error, found later
            return all(guard(value[index]) for index, guard in some)

        return fits

    def _table(self, shape: Table) -> Guard | None:
        inner = self.guard(shape.value)

        def fits(value: Any) -> bool:
            if not isinstance(value, Mapping):
                return True  # another error, found later
            if not _has_declared_keys(shape.key, value):
                return False
            return inner is None or all(map(inner, value.values()))

        return fits

    def _choice(self, shape: Choice) -> Guard | None:
        guards = [(member.kinds, self.guard(member)) for member in shape.members]
        if all(guard is None for _kinds, guard in guards):
            return None
        by_kind = {
            kind: [guard for kinds, guard in guards if kinds & names] for kind, names in _KIND_NAMES.items()
        }

        def fits(value: Any) -> bool:
            if value is None:
                return True
            candidates = by_kind[kind_of(value)]
            return not candidates or any(guard is None or guard(value) for guard in candidates)

        return fits

    def _record(self, shape: Record) -> Guard:
        if id(shape) in self._records:
            return lambda value: self._records[id(shape)](value)  # noqa: PLW0108  # it is replaced below
        self._records[id(shape)] = (
            _always  # found by a class inside itself; replaced below before it is called
        )
        some = [] if shape.style == "model" else self._fields(shape.fields)
        cls, is_dict = shape.cls, shape.style == "typed dict"

        def fits(value: Any) -> bool:
            if type(value) is not cls and not (
                is_dict and value.keys() <= names if isinstance(value, dict) else _keeps_fields(shape, value)
            ):
                return False
            if isinstance(value, dict):
                return all(name not in value or guard(value[name]) for name, guard in some)
            return all(guard(getattr(value, name)) for name, guard in some if hasattr(value, name))

        def fits_simple(value: Any) -> bool:
            return type(value) is cls or _keeps_fields(shape, value)

        names = shape.names
        self._records[id(shape)] = guard = fits if some else fits_simple
        return guard

    def _fields(self, fields: tuple[Field, ...]) -> list[tuple[str, Guard]]:
        return [(each.name, guard) for each in fields if (guard := self.guard(each.shape)) is not None]


_MANY: Final = (list, tuple, set, frozenset)
_KIND_NAMES: Final = {
    ARRAY: frozenset({ARRAY}),
    OBJECT: frozenset({OBJECT}),
    "scalar": EVERY_KIND - {ARRAY, OBJECT},
}


def kind_of(value: Any) -> str:
    """Whether a value is written as an array, an object or a scalar."""
    if isinstance(value, _MANY):
        return ARRAY
    if isinstance(value, Mapping) or field_names(type(value)) is not None:
        return OBJECT
    return "scalar"


def _always(_value: Any) -> bool:
    return True


def _is_timed(shape: Shape) -> bool:
    return isinstance(shape, Leaf) and shape.annotation in (dt.datetime, dt.time)


def _has_whole_minutes(value: Any) -> bool:
    zone = getattr(value, "tzinfo", None)
    if zone is None or zone is dt.UTC:
        return True
    offset = value.utcoffset()
    return offset is None or (offset.seconds % 60 == 0 and not offset.microseconds)


def _keeps_fields(shape: Record, value: Any) -> bool:
    """Tell whether a value of another class than declared has only fields that the declared class has."""
    if isinstance(value, dict):
        known = shape.names | {each.written for each in shape.fields} | {shape.tag[0] if shape.tag else ""}
        return value.keys() <= known or shape.style == "model"
    if shape.style == "named tuple":
        return not isinstance(value, tuple) or len(value) <= len(shape.fields)
    names = field_names(type(value))
    return names is None or shape.names.issuperset(names)


def _has_declared_keys(shape: Shape, value: Mapping[Any, Any]) -> bool:
    """Tell whether the keys are of the declared class: any of them is written as text, so others would turn into it."""
    declared = getattr(shape, "annotation", str)
    kinds = set(map(type, value))
    if len(kinds) <= 1 and declared in kinds:
        return True
    if isinstance(shape, Anything):
        return kinds <= {str}
    return not isinstance(declared, type) or all(issubclass(kind, declared) for kind in kinds)


def explain_misfit(shape: Shape, value: Any, path: str = "$") -> EncodingError | None:
    """The error for a value that its guard refused; None when no part of it can be blamed."""
    if (error := _explain_here(shape, value, path)) is not None:
        return error
    if isinstance(shape, Choice):
        return _explain_choice(shape, value, path)
    for inner, part, segment in _parts(shape, value):
        if (error := explain_misfit(inner, part, path + segment)) is not None:
            return error
    return None


def _explain_here(shape: Shape, value: Any, path: str) -> EncodingError | None:
    if isinstance(shape, Anything):
        return explain_plain(value, path)
    if _is_timed(shape) and not _has_whole_minutes(value):
        fault = "its time zone's offset has seconds, which JSON cannot hold; convert it to UTC first"
        return EncodingError(placed(path, fault), path=path)
    if isinstance(shape, Table) and isinstance(value, Mapping) and not _has_declared_keys(shape.key, value):
        fault = (
            "a key is not of the declared type, yet would be read back as it; declare the type of the keys"
        )
        return EncodingError(placed(path, fault), path=path)
    if isinstance(shape, Record) and type(value) is not shape.cls and not _keeps_fields(shape, value):
        return _stranger(value, type_name(shape.cls), path)
    return None


def _explain_choice(shape: Choice, value: Any, path: str) -> EncodingError | None:
    if value is None:
        return None
    names = _KIND_NAMES[kind_of(value)]
    members = [member for member in shape.members if member.kinds & names]
    errors = [explain_misfit(member, value, path) for member in members]
    if not errors or None in errors:  # one member takes it
        return None
    foreign = [isinstance(member, Record) and not _keeps_fields(member, value) for member in members]
    if len(members) > 1 and all(foreign):  # the whole union's fault, not one member's
        return _stranger(
            value, " | ".join(type_name(getattr(member, "cls", object)) for member in members), path
        )
    return errors[foreign.index(False)] if False in foreign else errors[0]


def _stranger(value: Any, declared: str, path: str) -> EncodingError:
    return EncodingError(
        placed(
            path,
            f"{name_of(value)} was given where {declared} is declared, so fields would be lost; "
            "declare the class itself, or a union of the classes",
        ),
        path=path,
    )


def _parts(shape: Shape, value: Any) -> list[tuple[Shape, Any, str]]:
    if isinstance(shape, Items) and isinstance(value, _MANY):
        return [(shape.item, part, f"[{index}]") for index, part in enumerate(value)]
    if isinstance(shape, Fixed) and isinstance(value, list | tuple) and len(value) == len(shape.items):
        return [
            (inner, part, f"[{index}]")
            for index, (inner, part) in enumerate(zip(shape.items, value, strict=True))
        ]
    if isinstance(shape, Table) and isinstance(value, Mapping):
        return [(shape.value, part, key_place(index)) for index, part in enumerate(value.values())]
    if isinstance(shape, Record) and shape.style != "model":
        if isinstance(value, dict):
            return [
                (each.shape, value[each.name], f".{each.name}") for each in shape.fields if each.name in value
            ]
        return [
            (each.shape, getattr(value, each.name), f".{each.name}")
            for each in shape.fields
            if hasattr(value, each.name)
        ]
    return []
