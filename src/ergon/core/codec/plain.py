"""What may cross the log without an annotation: only what reads back equal, class for class.

JSON has six kinds of value. A tuple would come back as a list, a UUID as a str: equal on no replay. So a value
without a declared type is None, bool, int, finite float, str, list, or dict with str keys, all the way down.
"""

from __future__ import annotations

import math
from typing import Any

from ergon.core.codec.encode import write
from ergon.core.codec.paths import placed
from ergon.core.codec.walk import SCALARS, Link, find, name_of, parts_of, why_not
from ergon.errors import EncodingError


def is_plain(value: Any) -> bool:
    """Tell whether a value reads back as itself without a declared type. `RecursionError` when nested too deeply."""
    kind = type(value)
    if kind in SCALARS:
        return True
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        for key, part in value.items():
            if type(key) is not str or (type(part) not in SCALARS and not is_plain(part)):
                return False
        return True
    if kind is not list:
        return False
    for part in value:  # noqa: SIM110  # half the time of a generator
        if type(part) not in SCALARS and not is_plain(part):
            return False
    return True


def explain_plain(value: object, prefix: str = "$") -> EncodingError | None:
    """The error for a value that `is_plain` refused: which part, what it is, and what to do. None for a plain one."""
    found = find(value, _wrong)
    if found is None:
        return None
    path, fault = found
    path = prefix + path[1:]
    return EncodingError(placed(path, fault), path=path)


def _wrong(part: Any, link: Link) -> str | None:
    kind = type(part)
    if kind in SCALARS:
        return None
    if kind is float:
        return (
            None if math.isfinite(part) else "NaN and infinity have no JSON form; use None or a str instead"
        )
    if kind is list or kind is dict:
        if link.parent is not None and link.parent.holds(id(part)):
            return f"{name_of(part)} contains itself"
        odd = next((key for key in part if type(key) is not str), None) if kind is dict else None
        if odd is not None:
            return f"a key of type {name_of(odd)} would read back as str; annotate the return type"
        return None
    if next(parts_of(part), None) is None:
        try:
            write(part)
        except Exception:  # noqa: BLE001  # whatever a user's hook raises: no annotation would help
            return why_not(part)
    return f"{name_of(part)} would not read back as itself without a declared type; annotate the return type"
