"""Annotations to shapes. What is not known here is refused, so that nothing is ever read back as something else."""

from __future__ import annotations

import datetime as dt
import decimal
import types
import typing
import uuid
from collections import abc
from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Literal, NewType, TypeVar, Union

import msgspec

from ergon.core.codec.hooks import is_supported
from ergon.core.codec.records import parse_record, record_style
from ergon.core.codec.shape import Anything, Choice, Fixed, Items, Leaf, OddEnum, Shape, Table
from ergon.core.codec.walk import type_name
from ergon.errors import UsageError

_SCALARS: Final[dict[Any, frozenset[str]]] = {
    type(None): frozenset({"null"}),
    bool: frozenset({"bool"}),
    int: frozenset({"int"}),
    float: frozenset({"int", "float"}),
    **dict.fromkeys(
        (str, bytes, bytearray, memoryview, uuid.UUID, decimal.Decimal, dt.datetime, dt.date,
         dt.time, dt.timedelta),
        frozenset({"str"}),
    ),
}  # fmt: skip
_ITEMS: Final[dict[Any, Callable[[Any], Any]]] = {
    list: list,
    set: set,
    frozenset: frozenset,
    abc.Sequence: list,
    abc.MutableSequence: list,
    abc.Collection: list,
    abc.Set: set,
    abc.MutableSet: set,
}
_KEY_KINDS: Final = (frozenset({"str"}), frozenset({"int"}), frozenset({"int", "float"}))
_TABLES: Final = (dict, abc.Mapping, abc.MutableMapping)
_WRAPPERS: Final = tuple(
    wrapper
    for name in ("Final", "Required", "NotRequired", "ReadOnly")
    if (wrapper := getattr(typing, name, None)) is not None
)
_ANYTHING: Final = Anything()


def parse(annotation: Any, memo: dict[Any, Shape]) -> Shape:
    """Return the shape of an annotation. `memo` holds the records met so far, by annotation.

    Raises `UsageError` for a type that JSON cannot give back.
    """
    if annotation is None:
        annotation = type(None)
    if annotation in (Any, object):
        return _ANYTHING
    if isinstance(annotation, type) and (kinds := _SCALARS.get(annotation)) is not None:
        return Leaf(annotation, kinds)
    if isinstance(annotation, TypeVar | NewType):
        return _parse_named(annotation, memo)
    return _parse_composed(annotation, memo)


def _parse_composed(annotation: Any, memo: dict[Any, Shape]) -> Shape:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _parse_annotated(annotation, args[0], memo)
    if origin in _WRAPPERS:
        return parse(args[0], memo)
    if origin is Union or origin is types.UnionType:
        return _union(tuple(parse(arg, memo) for arg in args))
    if origin is Literal:
        return _parse_literal(annotation, args)
    if (alias := getattr(origin or annotation, "__value__", None)) is not None:  # type X = ...
        params = getattr(origin, "__type_params__", ())
        return parse(alias[args] if params else alias, memo)
    return _parse_class(annotation, origin or annotation, args, memo)


def _parse_class(annotation: Any, kind: Any, args: tuple[Any, ...], memo: dict[Any, Shape]) -> Shape:
    if kind in _ITEMS:
        return Items(_ITEMS[kind], parse(args[0], memo) if args else _ANYTHING)
    if kind is tuple:
        return _parse_tuple(annotation, args, memo)
    if kind in _TABLES:
        return _parse_table(annotation, args or (Any, Any), memo)
    if isinstance(kind, type):
        if issubclass(kind, Enum):
            return _parse_enum(kind)
        if (style := record_style(kind)) is not None:
            return parse_record(annotation, style, memo, parse)
        if is_supported(kind):
            return Leaf(annotation, _custom_kinds(kind))
        if kind is msgspec.UnsetType:
            return Leaf(annotation, frozenset())
    raise UsageError(
        f"{spell(annotation)} cannot be read back from JSON. Use a dataclass, a TypedDict, a msgspec.Struct, "
        "a pydantic model, or plain data"
    )


def spell(annotation: Any) -> str:
    """An annotation as people write it."""
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return f"`{type_name(annotation)}`"
    if isinstance(annotation, str):
        return f"the name {annotation!r}, which was not resolved to a type,"
    return f"`{annotation}`"


def _parse_named(variable: TypeVar | NewType, memo: dict[Any, Shape]) -> Shape:
    if isinstance(variable, NewType):
        return parse(variable.__supertype__, memo)
    if variable.__constraints__:
        return _union(tuple(parse(each, memo) for each in variable.__constraints__))
    return parse(variable.__bound__, memo) if variable.__bound__ is not None else _ANYTHING


def _parse_annotated(annotation: Any, inner: Any, memo: dict[Any, Shape]) -> Shape:
    shape = parse(inner, memo)
    return Leaf(annotation, shape.kinds) if isinstance(shape, Leaf) else shape  # keeps msgspec.Meta of a leaf


def _parse_tuple(annotation: Any, args: tuple[Any, ...], memo: dict[Any, Shape]) -> Shape:
    if len(args) == 2 and args[1] is ...:
        return Items(tuple, parse(args[0], memo))
    if not args and annotation is tuple:
        return Items(tuple, _ANYTHING)
    return Fixed(tuple(parse(arg, memo) for arg in args))


def _parse_table(annotation: Any, args: tuple[Any, ...], memo: dict[Any, Shape]) -> Shape:
    key, value = (parse(arg, memo) for arg in args)
    if isinstance(key, Anything) or (isinstance(key, Leaf) and key.kinds in _KEY_KINDS):
        return Table(key, value)
    raise UsageError(f"{spell(annotation)}: keys must be of one type that is written as text or a number")


def _parse_literal(annotation: Any, values: tuple[Any, ...]) -> Shape:
    kinds = {bool: "bool", int: "int", str: "str", type(None): "null"}
    try:
        return Leaf(annotation, frozenset(kinds[type(value)] for value in values))
    except KeyError:
        raise UsageError(
            f"{annotation} may hold only str, int, bool and None to be read back from JSON"
        ) from None


def _parse_enum(kind: type[Enum]) -> Shape:
    values = [member.value for member in kind]
    for base in (str, int):
        if all(isinstance(value, base) and not isinstance(value, bool) for value in values):
            return Leaf(kind, frozenset({base.__name__}))
    try:
        members = {msgspec.json.encode(member.value): member for member in kind}
    except Exception:  # noqa: BLE001  # a value with no JSON form
        members = {}
    if len(members) != len(values):
        raise UsageError(
            f"{spell(kind)} has values that JSON cannot hold or tell apart; use str or int values"
        )
    return OddEnum(kind, members)


def _custom_kinds(kind: type) -> frozenset[str]:
    if issubclass(kind, float):
        return frozenset({"int", "float"})
    return frozenset({"int" if issubclass(kind, int) else "str"})


def _union(members: tuple[Shape, ...]) -> Shape:
    flat: list[Shape] = []
    for member in members:
        flat.extend(member.members if isinstance(member, Choice) else (member,))
    if any(isinstance(member, Anything) for member in flat):
        return _ANYTHING
    return flat[0] if len(flat) == 1 else Choice(tuple(flat))
