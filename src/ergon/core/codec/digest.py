"""A short fingerprint of arguments, to notice on replay that a flow asks with other arguments than before."""

from __future__ import annotations

from typing import Any, Final
from zlib import crc32

import msgspec

from ergon.core.codec.hooks import to_json
from ergon.core.codec.walk import all_finite, field_names, is_pydantic_model, name_of


def digest(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return a few characters that are the same for the same arguments, in any process and Python version.

    It is a checksum of 64 bits, made once for every step: the CRC-32 of their JSON, read forwards and backwards.
    Changes within four bytes always show; of any others about one in 2**64 does not. It takes half as long as a
    cryptographic hash. Like any 64 bits it is no defence against somebody who computes two arguments with the same one.

    Sets and dicts count without their order. An argument that has no JSON form (a client, a lock) counts by its
    class's qualified name only. Arguments that have the same JSON form (a tuple and a list) count as the same.
    """
    if not kwargs:
        if not args:
            return NOTHING
        asked: Any = args
    else:
        asked = {"": args, **kwargs}  # no parameter is named ""
    try:
        raw = _encode(asked)
        for value in args if not kwargs else (args, *kwargs.values()):
            if type(value) not in _PLAIN:
                # A set of sets or of NaNs sorts without an error but in no fixed order; its text shows these marks.
                if raw.find(b"[[", 1) >= 0 or (raw.find(b"null") >= 0 and not all_finite(asked)):
                    raw = _slow(args, kwargs)
                break
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # mixed sets, int keys, values of the user's that cannot be encoded
        raw = _slow(args, kwargs)
    return hex(crc32(raw) << 32 | crc32(raw[::-1]))


def _to_fields(value: Any) -> Any:
    if is_pydantic_model(type(value)):  # its own JSON would write sets in hash order
        return _model_fields(value)
    try:
        return to_json(value)
    except TypeError:
        return name_of(value)


def _model_fields(model: Any) -> dict[str, Any]:
    fields = {name: getattr(model, name, None) for name in field_names(type(model)) or ()}
    return {**(getattr(model, "__pydantic_extra__", None) or {}), **fields}


_PLAIN: Final = frozenset({int, str, bool, bytes, type(None)})
_encode = msgspec.json.Encoder(enc_hook=_to_fields, order="deterministic").encode
NOTHING: Final = hex(crc32(b"[]") << 32 | crc32(b"]["))


def _slow(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
    parts = [_canonical_or_name(arg) for arg in args]
    if not kwargs:
        return b"[" + b",".join(parts) + b"]"
    named = [_encode(str(key)) + b":" + _canonical_or_name(kwargs[key]) for key in sorted(kwargs)]
    return b'{"":[' + b",".join(parts) + b"]," + b",".join(named) + b"}"


def _canonical_or_name(value: Any) -> bytes:
    try:
        return _canonical(value)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001  # cycles, lone surrogates, properties that raise: the class is all that can be said
        return _encode(name_of(value))


def _canonical(value: Any) -> bytes:
    """The encoder's text, with sets in the order of their members' text and dicts in that of their keys'."""
    kind = type(value)
    if kind in _LEAVES:
        return _encode(value)
    if isinstance(value, dict):
        items = sorted((_key(key), _canonical(part)) for key, part in value.items())
        return b"{" + b",".join(key + b":" + part for key, part in items) + b"}"
    if isinstance(value, set | frozenset):
        return b"[" + b",".join(sorted(map(_canonical, value))) + b"]"
    if isinstance(value, list | tuple):
        return b"[" + b",".join(map(_canonical, value)) + b"]"
    names = field_names(kind)
    if names is not None and not isinstance(value, type):
        fields = (
            _model_fields(value)
            if is_pydantic_model(kind)
            else {name: getattr(value, name) for name in names if hasattr(value, name)}
        )
        return _canonical(fields)
    return _encode(value)


_LEAVES: Final = frozenset({type(None), bool, int, float, str, bytes})


def _key(key: Any) -> bytes:
    text = _canonical(key)
    return text if text.startswith(b'"') else b'"' + text.replace(b'"', b'\\"') + b'"'
