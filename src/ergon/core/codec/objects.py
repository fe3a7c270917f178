"""JSON without a type: an object taken apart, and two texts compared for what they say."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ergon.errors import DecodingError

raw_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
"""The members of a JSON object, each still to be decoded."""


def split_object(text: str) -> dict[str, str]:
    """The members of a JSON object, each as JSON text. Raises `DecodingError` when it is no object."""
    try:
        return {name: bytes(raw).decode() for name, raw in raw_members(text).items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodingError(f"stored text is not a JSON object: {error}") from None


def holds(text: str, members: str) -> bool:
    """Whether a JSON object has all `members` of another: in any order, 1 and 1.0 being one number.

    Raises `DecodingError` when one of them is no object.
    """
    if text == members:
        return True
    all_of_it = split_object(text)
    return all(
        name in all_of_it and _same(msgspec.json.decode(all_of_it[name]), msgspec.json.decode(value))
        for name, value in split_object(members).items()
    )


def differing(text: str, other: str) -> str:
    """Which members of two JSON objects differ: "`n`, `self.amount`"; empty where that cannot be told.

    Names only, as values may be secret. Of an object that a member is, the one of `@flow_type`, it names the members.
    """
    return ", ".join(f"`{name}`" for name in _differing(text, other))


def _differing(text: str, other: str) -> list[str]:
    try:
        one, two = split_object(text), split_object(other)
    except DecodingError:
        return []
    found: list[str] = []
    for name in {**one, **two}:
        mine, others = one.get(name, ""), two.get(name, "")
        if not (mine and others):
            found.append(name)
        elif not _same(msgspec.json.decode(mine), msgspec.json.decode(others)):
            inside = _differing(mine, others) if name == "self" else []
            found += [f"{name}.{member}" for member in inside] or [name]
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, bool) or isinstance(other, bool):  # to Python, true is 1
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
