"""The types msgspec leaves to us, both ways: pydantic models, paths, complex, and subclasses of str, int and float.

pydantic is never imported here: a value can only be a model when the user's code has imported it.
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, get_args

import msgspec

from ergon.core.codec.paths import key_place
from ergon.core.codec.walk import is_pydantic_model, name_of, type_name

_BASES: Final = (str, int, float)


class Refused(ValueError):
    """A hook will not convert this. The message is safe to show: it holds no part of the value."""


def to_json(value: Any) -> Any:
    """Give msgspec something it can encode in place of `value`, or raise `TypeError`."""
    kind = type(value)
    if is_pydantic_model(kind):
        return msgspec.Raw(_dump_model(value))
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if kind is complex:
        return str(value)
    if isinstance(value, float):  # such as numpy.float64
        if not math.isfinite(value):
            raise TypeError("not finite")
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    raise TypeError(f"{name_of(value)} has no JSON form")


def _dump_model(model: Any) -> bytes:
    # By field name, not alias: the two kinds of alias may differ, and names always read back.
    text: str = model.model_dump_json(round_trip=True, by_alias=False, warnings=False)
    return text.encode()


def from_json(kind: type, data: Any) -> Any:
    """Make a `kind` from what JSON held, for kinds where `is_supported` is true."""
    origin = getattr(kind, "__origin__", kind)
    if origin is object:  # as Any
        return data
    if is_pydantic_model(origin):
        return _load_model(kind, data)
    if issubclass(origin, pathlib.PurePath) or origin is complex:
        if not isinstance(data, str):
            raise Refused(f"expected `str`, got `{name_of(data)}`")
        return origin(data)
    for base in _BASES:
        if issubclass(origin, base):
            if not isinstance(data, base) and not (base is float and type(data) is int):
                raise Refused(f"expected `{base.__name__}`, got `{name_of(data)}`")
            return origin(data)
    raise Refused(f"{type_name(origin)} cannot be read back from JSON")


def _load_model(kind: Any, data: Any) -> Any:
    # Through JSON text again: in JSON mode a strict model accepts "2020-01-01" for a date, in Python mode it does not.
    try:
        return load_model_text(kind, msgspec.json.encode(data))
    except Refused:
        raise
    except Exception as error:  # noqa: BLE001  # pydantic's error, or one from a validator of the user's
        raise Refused(_model_fault(error, kind, data)) from None


def load_model_text(kind: Any, text: str | bytes) -> Any:
    """Validate a pydantic model from JSON text, by field names where this version of pydantic can."""
    try:
        return kind.model_validate_json(text, by_alias=False, by_name=True)
    except TypeError as error:
        if "by_alias" not in str(error) and "by_name" not in str(error):
            raise
        return kind.model_validate_json(text)  # pydantic before 2.11


def _model_fault(error: Exception, kind: Any, data: Any) -> str:
    """What a model refused, without its value: pydantic's own text quotes the input."""
    try:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]  # type: ignore[attr-defined]
        return f"refused by its model at `{_model_place(first['loc'], kind, data)}` ({first['type']})"
    except Exception:  # noqa: BLE001  # not pydantic's error, or one of a shape we do not know
        return f"refused by its model ({type(error).__name__})"


def _model_place(location: tuple[str | int, ...], kind: Any, data: Any) -> str:
    """Where in a model: declared names, and the places of keys that no field of a model there declares."""
    place, declared = "", [kind]
    for part in location:
        names = {name: info for model in _models(declared) for name, info in _model_names(model)}
        if isinstance(part, str) and part in names:
            place += f".{part}"
            declared = [names[part].annotation]
            data = data.get(part) if isinstance(data, dict) else None
        elif isinstance(data, dict) and part in data:
            place += key_place(list(data).index(part))
            data = data[part]
        elif isinstance(part, int) and isinstance(data, list):
            place += f"[{part}]"
            data = data[part]
        # Else it names a member of a union, which is no place.
    return place or "."


def _model_names(model: Any) -> Iterator[tuple[str, Any]]:
    for name, info in model.model_fields.items():
        yield from (
            (each, info) for each in (name, info.alias, info.validation_alias) if isinstance(each, str)
        )


def _models(annotations: list[Any]) -> Iterator[Any]:
    """The models anywhere in these annotations."""
    for annotation in annotations:
        if is_pydantic_model(annotation):
            yield annotation
        else:
            yield from _models(list(get_args(annotation)))


def is_supported(kind: object) -> bool:
    """Tell whether `from_json` can make this class."""
    origin = getattr(kind, "__origin__", kind)
    if not isinstance(origin, type):
        return False
    if is_pydantic_model(origin) or origin is complex or issubclass(origin, pathlib.PurePath):
        return True
    return issubclass(origin, _BASES) and not issubclass(origin, Enum)
