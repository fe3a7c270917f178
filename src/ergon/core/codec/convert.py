"""JSON data to values by shape, for the rare annotations that msgspec refuses: unions of several classes, odd Enums.

Slower than msgspec, which still reads every leaf. Objects are made as msgspec makes them: without `__init__`, fields
set one by one, then `__post_init__`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ergon.core.codec.hooks import Refused, from_json
from ergon.core.codec.paths import key_place
from ergon.core.codec.shape import (
    Anything,
    Choice,
    Field,
    Fixed,
    Items,
    Leaf,
    OddEnum,
    Record,
    Shape,
    Table,
    every_shape,
)
from ergon.core.codec.union import check_choice, pick
from ergon.core.codec.walk import name_of, type_name
from ergon.errors import UsageError

UNKNOWN_FIELD: Final = "Object contains unknown field"
"""How msgspec's refusal begins of a key that a class with `forbid_unknown_fields` does not declare."""


class Misfit(Exception):
    """JSON data that does not fit; the message is safe to show."""

    def __init__(self, path: str, fault: str) -> None:
        self.path, self.fault = path, fault
        super().__init__(fault)


def check_convertible(root: Shape) -> None:
    """Raise `UsageError` when `convert` could be in doubt about any value of this shape."""
    for shape in every_shape(root):
        if isinstance(shape, Choice):
            check_choice(shape)
        elif isinstance(shape, Leaf):
            try:
                msgspec.json.Decoder(shape.annotation, dec_hook=from_json)
            except (TypeError, NameError) as error:
                raise UsageError(f"{shape.annotation!r} cannot be read back from JSON: {error}") from None


def convert(shape: Shape, data: Any, path: str = "$") -> Any:
    """Make the value. Raises `Misfit`, or what a class's own `__post_init__` raises."""
    if isinstance(shape, Anything):
        return data
    if isinstance(shape, Leaf):
        return _leaf(shape.annotation, data, path)
    if isinstance(shape, Choice):
        member = pick(shape, data)
        if member is None:
            raise Misfit(path, f"`{_json_name(data)}` is no member of the union, or could be several")
        return convert(member, data, path)
    if isinstance(shape, OddEnum):
        try:
            return shape.members[msgspec.json.encode(data)]
        except KeyError:
            raise Misfit(path, f"not one of the values of {type_name(shape.cls)}") from None
    if isinstance(shape, Items):
        return shape.make(
            convert(shape.item, part, f"{path}[{i}]") for i, part in enumerate(_want(list, data, path))
        )
    if isinstance(shape, Fixed):
        return _fixed(shape, _want(list, data, path), path)
    if isinstance(shape, Table):
        return {
            _key(shape.key, key, path): convert(shape.value, part, path + key_place(index))
            for index, (key, part) in enumerate(_want(dict, data, path).items())
        }
    assert isinstance(shape, Record), shape
    return _record(shape, data, path)


def _leaf(annotation: Any, data: Any, path: str) -> Any:
    try:
        return msgspec.convert(data, annotation, dec_hook=from_json)
    except msgspec.ValidationError as error:
        if error.__cause__ is not None and not isinstance(error.__cause__, Refused):
            raise
        fault = str(error)
        if fault.startswith("Invalid"):  # may quote the value
            fault = "not a value of its type"
        elif fault.startswith(UNKNOWN_FIELD):  # quotes its name
            fault = "an unknown field"
        raise Misfit(path, fault[:1].lower() + fault[1:]) from None


def _key(shape: Shape, key: str, path: str) -> Any:
    if isinstance(shape, Anything):
        return key
    assert isinstance(shape, Leaf), "parse lets no other key pass"
    try:
        return msgspec.convert(key, shape.annotation, strict=False, dec_hook=from_json)
    except msgspec.ValidationError:
        raise Misfit(path, "a key is not of the declared type") from None


def _fixed(shape: Fixed, data: list[Any], path: str) -> tuple[Any, ...]:
    if len(data) != len(shape.items):
        raise Misfit(path, f"expected {len(shape.items)} items, got {len(data)}")
    return tuple(
        convert(each, part, f"{path}[{i}]")
        for i, (each, part) in enumerate(zip(shape.items, data, strict=True))
    )


def _record(shape: Record, data: Any, path: str) -> Any:
    if shape.style == "named tuple":
        return _named_tuple(shape, _want(list, data, path), path)
    _want(dict, data, path)
    if shape.style == "model":
        return _leaf(shape.cls, data, path)
    if shape.tag is not None and data.get(shape.tag[0], shape.tag[1]) != shape.tag[1]:
        raise Misfit(path, "an unknown tag")
    values = {
        each.name: convert(each.shape, data[each.written], f"{path}.{each.name}")
        for each in shape.fields
        if each.written in data
    }
    for each in shape.fields:
        if each.required and each.name not in values:
            raise Misfit(path, f"object missing required field `{each.written}`")
    if shape.style == "typed dict":
        return values
    if shape.style == "struct":
        return shape.cls(**values)
    return _object(shape, values)


def _object(shape: Record, values: dict[str, Any]) -> Any:
    made = shape.cls.__new__(shape.cls)
    for each in shape.fields:
        object.__setattr__(
            made, each.name, values[each.name] if each.name in values else _default(each, made)
        )
    after = getattr(made, "__attrs_post_init__" if shape.style == "attrs" else "__post_init__", None)
    if after is not None:
        after()
    return made


def _named_tuple(shape: Record, data: list[Any], path: str) -> Any:
    least = sum(each.required for each in shape.fields)
    if not least <= len(data) <= len(shape.fields):
        raise Misfit(path, f"expected {least} to {len(shape.fields)} items, got {len(data)}")
    return shape.cls(
        *(
            convert(each.shape, part, f"{path}.{each.name}")
            for each, part in zip(shape.fields, data, strict=False)
        )
    )


def _default(field: Field, made: Any) -> Any:
    assert field.make_default is not None, "a field without a default is required"
    return field.make_default(made)


def _want(kind: type, data: Any, path: str) -> Any:
    if type(data) is not kind:
        raise Misfit(path, f"expected `{_NAMES[kind]}`, got `{_json_name(data)}`")
    return data


_NAMES: Final[dict[type, str]] = {list: "array", dict: "object", type(None): "null"}


def _json_name(data: Any) -> str:
    return _NAMES.get(type(data), name_of(data))
