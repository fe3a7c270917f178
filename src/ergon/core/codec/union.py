"""Which member of a union a JSON value is. Decided from what the classes declare, or refused when the decoder is built.

Objects are told apart by their fields. Two classes are told apart when one requires a field that the other does not
have, or when a `Literal` field (or a msgspec tag) of both has different values. A field with a default tells
nothing: a payload from before it was added would lack it.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from ergon.core.codec.shape import OBJECT, Choice, Record, Shape
from ergon.core.codec.walk import type_name
from ergon.errors import UsageError


def check_choice(choice: Choice) -> None:
    """Raise `UsageError` when two members could be the same JSON value."""
    for one, other in combinations(choice.members, 2):
        both = one.kinds & other.kinds
        if both == {"int"} and ("float" in one.kinds) != ("float" in other.kinds):
            continue  # int | float: 1 is the int, 1.0 the float
        if both == {OBJECT} and isinstance(one, Record) and isinstance(other, Record):
            _check_records(one, other)
        elif both:
            raise UsageError(
                f"{_name(one)} | {_name(other)} cannot be told apart when they are read back: both may be written as a "
                f"JSON {min(both)}. Keep one of them, or put each in a dataclass of its own"
            )


def _check_records(one: Record, other: Record) -> None:
    if _differ_by_tag(one, other) or _own_required(one, other) or _own_required(other, one):
        return
    raise UsageError(
        f"{_name(one)} | {_name(other)} cannot be told apart when they are read back: neither requires a field that "
        f'the other does not have. Give each a tag, such as `kind: Literal["{_tag_for(one)}"] = "{_tag_for(one)}"` and '
        f'`kind: Literal["{_tag_for(other)}"] = "{_tag_for(other)}"`, or make both msgspec.Struct with `tag=True`'
    )


def _differ_by_tag(one: Record, other: Record) -> bool:
    mine, theirs = _tags(one), _tags(other)
    return any(not (mine[name] & theirs[name]) for name in mine.keys() & theirs.keys())


def _own_required(one: Record, other: Record) -> set[str]:
    written = {each.written for each in other.fields}
    own = {each.written for each in one.fields if each.required} - written
    if one.tag is not None and other.tag is None and one.tag[0] not in written:
        own.add(one.tag[0])
    return own


def _tags(record: Record) -> dict[str, frozenset[Any]]:
    tags = {each.written: each.tags for each in record.fields if each.tags is not None}
    if record.tag is not None:
        tags[record.tag[0]] = frozenset({record.tag[1]})
    return tags


def _tag_for(record: Record) -> str:
    return str(record.cls.__name__).lower()


def _name(shape: Shape) -> str:
    named = getattr(shape, "cls", None) or getattr(shape, "annotation", None)
    if isinstance(named, type):
        return type_name(named)
    return (
        str(named)
        if named is not None
        else {"Items": "a list, set or tuple", "Fixed": "a tuple"}.get(type(shape).__name__, "a dict")
    )


def pick(choice: Choice, data: Any) -> Shape | None:
    """The member that JSON `data` belongs to, or None when there is none, or more than one."""
    kind = _json_kind(data)
    members = [member for member in choice.members if kind in member.kinds]
    if kind == "int" and len(members) > 1:
        members = [member for member in members if "float" not in member.kinds]
    if kind == OBJECT and len(members) > 1:
        return _pick_record([member for member in members if isinstance(member, Record)], data)
    return members[0] if len(members) == 1 else None


def _pick_record(records: list[Record], data: dict[str, Any]) -> Record | None:
    possible = [record for record in records if _could_be(record, data)]
    if len(possible) <= 1:
        return possible[0] if possible else None
    # {x, y} has all that A{x} requires, but only B{x, y} knows every field.
    unknown = [len(data.keys() - {each.written for each in record.fields}) for record in possible]
    fewest = min(unknown)
    return possible[unknown.index(fewest)] if unknown.count(fewest) == 1 else None


def _could_be(record: Record, data: dict[str, Any]) -> bool:
    for name, values in _tags(record).items():
        if name in data and not _is_among(data[name], values):
            return False
    if record.tag is not None and record.tag[0] not in data:
        return False
    return all(each.written in data for each in record.fields if each.required)


def _is_among(value: Any, values: frozenset[Any]) -> bool:
    return any(type(value) is type(each) and value == each for each in values)


def _json_kind(data: Any) -> str:
    return _KINDS[type(data)]


_KINDS = {
    type(None): "null", bool: "bool", int: "int", float: "float", str: "str", list: "array", dict: OBJECT,
}  # fmt: skip
