"""Classes with named fields to shapes: dataclasses, attrs, msgspec.Struct, TypedDict, NamedTuple, pydantic models."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from ergon.core.codec.classes import class_hints
from ergon.core.codec.shape import ARRAY, Anything, Field, Leaf, Record, Shape, Style
from ergon.core.codec.walk import is_pydantic_model, type_name
from ergon.errors import UsageError

Parse = Callable[[Any, dict[Any, Shape]], Shape]


def record_style(kind: type) -> Style | None:
    """How a class declares its fields; None for a class without declared fields."""
    if is_pydantic_model(kind):
        return "model"
    if issubclass(kind, msgspec.Struct):
        return "struct"
    if typing.is_typeddict(kind) or hasattr(kind, "__total__"):
        return "typed dict"
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return "named tuple"
    if dataclasses.is_dataclass(kind):
        return "dataclass"
    return "attrs" if hasattr(kind, "__attrs_attrs__") else None


def parse_record(annotation: Any, style: Style, memo: dict[Any, Shape], parse: Parse) -> Shape:
    """Return the shape of a class with fields. `parse` is `parse.parse`, which calls this."""
    if annotation in memo:
        return memo[annotation]
    # A pydantic model with parameters is a class of its own; of the others, get_origin is the class.
    kind, args = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if style == "struct" and kind.__struct_config__.array_like:
        return Leaf(annotation, frozenset({ARRAY}))
    memo[annotation] = record = Record(kind, style)  # before its fields, which may contain it
    if style == "model":
        record.fields = tuple(_model_fields(kind))
    else:
        hints = class_hints(kind, args)
        made = _FIELDS[style](kind, hints)
        record.fields = tuple(
            replace(each, shape=parse(hints[each.name], memo), tags=tags_of(hints[each.name]))
            for each in made
        )
    if style == "struct" and kind.__struct_config__.tag is not None:
        record.tag = (kind.__struct_config__.tag_field, kind.__struct_config__.tag)
    record.names = frozenset(each.name for each in record.fields)
    return record


def tags_of(annotation: Any) -> frozenset[Any] | None:
    """The values of a Literal, else None."""
    while typing.get_origin(annotation) in (typing.Annotated, typing.Final, typing.Required):
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is not Literal:
        return None
    return frozenset(typing.get_args(annotation))


_LATER: Shape = Anything()
"""Stands in a field until its own shape is known."""


def _dataclass_fields(kind: Any, _hints: dict[str, Any]) -> Iterator[Field]:
    for each in kind.__dataclass_fields__.values():
        if each._field_type is dataclasses._FIELD_INITVAR:  # type: ignore[attr-defined]  # noqa: SLF001
            raise UsageError(
                f"`{type_name(kind)}` has the InitVar `{each.name}`, whose value is not kept, so it cannot be read back"
            )
    for each in dataclasses.fields(kind):
        make: Callable[[Any], Any] | None = None
        if each.default is not dataclasses.MISSING:
            make = _constant(each.default)
        elif each.default_factory is not dataclasses.MISSING:
            make = _factory(each.default_factory)
        yield Field(each.name, each.name, _LATER, required=make is None, make_default=make)


def _attrs_fields(kind: Any, _hints: dict[str, Any]) -> Iterator[Field]:
    for each in kind.__attrs_attrs__:
        make: Callable[[Any], Any] | None = None
        if hasattr(each.default, "takes_self"):
            make = each.default.factory if each.default.takes_self else _factory(each.default.factory)
        elif type(each.default).__name__ != "_Nothing":
            make = _constant(each.default)
        yield Field(each.name, each.name, _LATER, required=make is None, make_default=make)


def _struct_fields(kind: Any, _hints: dict[str, Any]) -> Iterator[Field]:
    for each in msgspec.structs.fields(kind):
        yield Field(each.name, each.encode_name, _LATER, required=each.required)


def _typed_dict_fields(kind: Any, hints: dict[str, Any]) -> Iterator[Field]:
    for name, hint in hints.items():
        required = name in kind.__required_keys__
        while typing.get_origin(hint) in (typing.Annotated, typing.Required, typing.NotRequired):
            # Said by the wrapper too: under `from __future__ import annotations` __required_keys__ cannot see it.
            required = {typing.Required: True, typing.NotRequired: False}.get(
                typing.get_origin(hint), required
            )
            hint = typing.get_args(hint)[0]  # noqa: PLW2901  # peeled layer by layer
        yield Field(name, name, _LATER, required=required)


def _named_tuple_fields(kind: Any, hints: dict[str, Any]) -> Iterator[Field]:
    for name in kind._fields:
        hints.setdefault(name, Any)  # collections.namedtuple declares none
        make = _constant(kind._field_defaults[name]) if name in kind._field_defaults else None
        yield Field(name, name, _LATER, required=make is None, make_default=make)


def _model_fields(kind: Any) -> Iterator[Field]:
    """Only what tells models apart; pydantic itself reads and checks them."""
    for name, info in kind.model_fields.items():
        yield Field(name, name, _LATER, required=info.is_required(), tags=tags_of(info.annotation))


def _constant(value: Any) -> Callable[[Any], Any]:
    return lambda _made: value


def _factory(make: Callable[[], Any]) -> Callable[[Any], Any]:
    return lambda _made: make()


_FIELDS: dict[str, Callable[[Any, dict[str, Any]], Iterator[Field]]] = {
    "dataclass": _dataclass_fields,
    "attrs": _attrs_fields,
    "struct": _struct_fields,
    "typed dict": _typed_dict_fields,
    "named tuple": _named_tuple_fields,
}
