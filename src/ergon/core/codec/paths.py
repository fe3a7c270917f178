"""Where a part of a value is, for people: `$.items[3].price`.

A path shows nothing of the value. Names in it are declared ones: of fields, and of the keys of a TypedDict. A key of
any other dict may be a secret itself (a token, an e-mail address), so it stands there by its place among the keys:
`$.prices[key 2]` is the third, counted from 0 as in a list.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ergon.core.codec.shape import Choice, Fixed, Items, Record, Shape, Table

SEGMENTS_MAX: Final = 30
"""Of a longer path the middle is left out."""


class Key(NamedTuple):
    """The step into a dict."""

    place: int
    key: object


class Index(NamedTuple):
    """The step into a list or tuple."""

    place: int


class Name(NamedTuple):
    """The step into a declared field."""

    name: str


ANY_MEMBER: Final = Name("")
"""The step into a set, whose members have no place."""

Segment = Key | Index | Name


def placed(path: str, fault: str) -> str:
    """What is wrong, with its place in front unless it is the whole value."""
    return fault if path == "$" else f"{path}: {fault}"


def key_place(index: int) -> str:
    """How a key is spelled that no declaration names."""
    return f"[key {index}]"


def spell(segments: Iterable[Segment], shape: Shape | None = None) -> str:
    """The path. Keys that `shape` declares, the shape of the whole value, are named."""
    spelled = ["$"]
    shapes = [shape] if shape is not None else []
    for segment in segments:
        text, shapes = _step(segment, _members(shapes))
        spelled.append(text)
    if len(spelled) > SEGMENTS_MAX:
        spelled[10:-10] = ["…"]
    return "".join(spelled)


def _step(segment: Segment, shapes: list[Shape]) -> tuple[str, list[Shape]]:
    """One segment as text, and the shapes that may stand there."""
    if isinstance(segment, Index):
        inner = [each.item for each in shapes if isinstance(each, Items)]
        inner += [
            each.items[segment.place]
            for each in shapes
            if isinstance(each, Fixed) and segment.place < len(each.items)
        ]
        return f"[{segment.place}]", inner
    if isinstance(segment, Name):
        if segment is ANY_MEMBER:
            return "[*]", [each.item for each in shapes if isinstance(each, Items)]
        return f".{segment.name}", _fields(segment.name, shapes)
    if type(segment.key) is str and (fields := _fields(segment.key, shapes)):
        return f".{segment.key}", fields
    return key_place(segment.place), [each.value for each in shapes if isinstance(each, Table)]


def _members(shapes: list[Shape]) -> list[Shape]:
    """The shapes, with those of a union in its place."""
    flat: list[Shape] = []
    for shape in shapes:
        flat += _members(list(shape.members)) if isinstance(shape, Choice) else [shape]
    return flat


def _fields(name: str, shapes: list[Shape]) -> list[Shape]:
    return [
        field.shape
        for shape in shapes
        if isinstance(shape, Record)
        for field in shape.fields
        if name in (field.name, field.written)
    ]
