"""Single values inside a failure record: JSON with a tag where JSON alone would lose the class.

An error's attributes have no declared types in general, so the common value types carry their name: a Decimal is
`{"$": "decimal", "v": "1.10"}`. Only the types in this file can come out. A dataclass, an enum or a pydantic model
is written as its JSON and comes back only where the exception class declares the attribute's type.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path, PurePath
from types import MemberDescriptorType
from typing import Any, Final
from uuid import UUID

import msgspec

from ergon.core.codec import MISSING, decoder_for, encode, hints_of
from ergon.core.codec.classes import class_hints
from ergon.core.codec.walk import name_of
from ergon.errors import ErgonError

TEXT_CHARS_MAX: Final = 8_000
VALUE_BYTES_MAX: Final = 64_000
RECORD_BYTES_MAX: Final = 256_000
DEPTH_MAX: Final = 20
TAG: Final = "$"

_TEXTUAL: Final[dict[type, str]] = {
    UUID: "uuid",
    datetime: "datetime",
    date: "date",
    time: "time",
    timedelta: "timedelta",
    Decimal: "decimal",
    bytes: "bytes",
}
_BY_TAG: Final = {tag: kind for kind, tag in _TEXTUAL.items()}
_SEQUENCES: Final[dict[type, str]] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_MAKERS: Final[dict[str, Callable[[Any], Any]]] = {
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
}


def cut(text: str, chars_max: int) -> str:
    """The text, at most `chars_max` characters and a note, without the lone surrogates JSON cannot hold."""
    if len(text) > chars_max:
        text = f"{text[:chars_max]}… [cut: {len(text):,} characters]"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class Budget:
    """Room for the values of one record, so that an error holding a large response stays a small row."""

    def __init__(self) -> None:
        self._left = RECORD_BYTES_MAX

    def pack(self, value: object) -> Any:
        """`pack`, or a text that names the value's class where it cannot travel or there is no room."""
        try:
            packed = pack(value)
            size = len(msgspec.json.encode(packed))
        except Exception:  # noqa: BLE001  # no JSON form, or user code raised on the way
            return {TAG: "lost", "v": name_of(value)}
        if size > min(VALUE_BYTES_MAX, self._left):
            return {TAG: "lost", "v": name_of(value)}
        self._left -= size
        return packed

    def pack_all(self, values: dict[str, Any]) -> dict[str, Any]:
        """Pack attributes, leaving out those that cannot travel."""
        packed = {cut(name, 200): self.pack(value) for name, value in values.items()}
        return {name: value for name, value in packed.items() if not _is_lost(value)}


def _is_lost(packed: Any) -> bool:
    return isinstance(packed, dict) and packed.get(TAG) == "lost"


def pack(value: Any, depth: int = 0) -> Any:
    """A JSON value that `unpack` reads back. Raises when `value` has no JSON form."""
    kind = type(value)
    if value is None or kind is bool or kind is int:
        return value
    if kind is str:
        return cut(value, TEXT_CHARS_MAX)
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", "v": str(value)}
    if tag := _TEXTUAL.get(kind):
        return {TAG: tag, "v": msgspec.to_builtins(value)}
    if isinstance(value, PurePath):
        return {TAG: "path", "v": str(value)}
    if isinstance(value, BaseException):  # such as `URLError.reason`, which may as well be a text
        return cut(str(value), TEXT_CHARS_MAX)
    return _pack_parts(value, kind, depth)


def _pack_parts(value: Any, kind: type, depth: int) -> Any:
    if depth > DEPTH_MAX:
        raise RecursionError
    if kind is list:
        return [pack(part, depth + 1) for part in value]
    if kind is dict:
        if all(type(key) is str for key in value) and TAG not in value:
            return {cut(key, TEXT_CHARS_MAX): pack(part, depth + 1) for key, part in value.items()}
        pairs = [[pack(key, depth + 1), pack(part, depth + 1)] for key, part in value.items()]
        return {TAG: "dict", "v": pairs}
    if tag := _SEQUENCES.get(kind):
        return {TAG: tag, "v": [pack(part, depth + 1) for part in value]}
    return {TAG: "json", "v": encode(value)}


def unpack(packed: Any, declared: object = MISSING, depth: int = 0) -> Any:
    """The value that `pack` wrote. `declared` is the type for a value that only its JSON was kept of."""
    if depth > DEPTH_MAX:
        raise RecursionError
    if isinstance(packed, list):
        return [unpack(part, MISSING, depth + 1) for part in packed]
    if not isinstance(packed, dict):
        return packed
    if TAG not in packed:
        return {key: unpack(part, MISSING, depth + 1) for key, part in packed.items()}
    return _unpack_tagged(packed[TAG], packed.get("v"), declared, depth)


def _unpack_tagged(tag: Any, value: Any, declared: object, depth: int) -> Any:
    if textual := _BY_TAG.get(str(tag)):
        return msgspec.convert(value, textual)
    if make := _MAKERS.get(str(tag)):
        return make(unpack(part, MISSING, depth + 1) for part in value)
    if tag == "dict":
        return {unpack(key, MISSING, depth + 1): unpack(part, MISSING, depth + 1) for key, part in value}
    if tag == "float":
        return float(value)
    if tag == "path":
        return Path(value)
    if tag == "json":
        return decoder_for(declared if declared is not None else MISSING).decode(value)
    if tag == "lost":
        return f"<{value}>"
    raise ValueError("unknown tag")


def _declared_types(kind: type) -> dict[str, Any]:
    """The types an exception class declares for its attributes: class annotations, else those of `__init__`."""
    declared: dict[str, Any] = {}
    sources: list[Callable[[], dict[str, Any]]] = [
        lambda: hints_of(vars(kind)["__init__"]).params,
        lambda: class_hints(kind),
    ]
    for each in reversed(kind.__mro__[1:]):
        if issubclass(each, Exception) and each.__module__ != "builtins":
            declared.update(declared_types(each))
    for source in sources:
        try:
            declared.update(source())
        except (ErgonError, KeyError):  # no such function, or a name we cannot resolve: plain JSON then
            continue
    return declared


declared_types: Callable[[type], dict[str, Any]] = lru_cache(maxsize=1024)(_declared_types)


def instance_values(error: BaseException) -> tuple[dict[str, Any], list[str]]:
    """An error's own attributes (in its dictionary and slots), and its notes."""
    values = dict(getattr(error, "__dict__", {}))
    notes = values.pop("__notes__", [])
    for name, slot in _slots(type(error)).items():
        try:
            values[name] = slot.__get__(error)
        except AttributeError:  # not set
            continue
    named = {
        name: value for name, value in values.items() if isinstance(name, str) and not name.startswith("__")
    }
    return named, [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []


def set_values(error: Exception, values: dict[str, Any]) -> None:
    """Put attributes into an error without running any setter, and without hiding a method of its class."""
    slots = _slots(type(error))
    for name, value in values.items():
        if name in slots:
            slots[name].__set__(error, value)
        elif not name.startswith("__") and not _is_method(type(error), name):
            error.__dict__[name] = value


def _slots(kind: type) -> dict[str, MemberDescriptorType]:
    found: dict[str, MemberDescriptorType] = {}
    for each in reversed(kind.__mro__):
        if each.__module__ != "builtins":
            found.update(
                {name: slot for name, slot in vars(each).items() if isinstance(slot, MemberDescriptorType)}
            )
    return found


def _is_method(kind: type, name: str) -> bool:
    return any(callable(vars(each).get(name)) for each in kind.__mro__)
