"""Notice a step body that changes what its flow handed to it.

Bodies get the flow's own objects, as copying each of them would cost more than most steps. So a body that does
`self.total += 1` or `cart.append(item)` changes the flow live, while a replay, which does not run the body, would not
see the change. Arguments that can change are compared before and after; plain values cost a look at their class.

A change is blamed on the body only when no flow code ran in between: flows may change their own objects.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from operator import attrgetter
from typing import Any, Final, NamedTuple

from ergon.core.codec import digest
from ergon.core.codec.walk import field_names

FIXED: Final = frozenset(
    {type(None), bool, int, float, str, bytes, Decimal, uuid.UUID, datetime, date, time, timedelta}
)
"""Values of these classes cannot change; where all arguments are, there is nothing to `watch`."""
_fields_of: Final[dict[type, Callable[[Any], tuple[Any, ...]]]] = {}


class Watched(NamedTuple):
    """Arguments that can change, and how they were when the body began."""

    values: list[Any]
    states: list[Any]
    turn: int

    def changed(self, turn: int) -> Any:
        """The first argument that the body changed; None when there is none, or when flow code ran meanwhile."""
        if turn == self.turn:
            for value, state in zip(self.values, self.states, strict=True):
                if _state(value) != state:
                    return value
        return None


def watch(args: tuple[Any, ...], kwargs: dict[str, Any], turn: int) -> Watched | None:
    """Remember the arguments of a body that is about to begin; None when nothing in them can change."""
    values = [value for value in (*args, *kwargs.values()) if type(value) not in FIXED]
    return Watched(values, [_state(value) for value in values], turn) if values else None


def _state(value: Any) -> Any:
    """Something equal as long as the value is: its fields where all are plain, else its digest."""
    kind = type(value)
    fields_of = _fields_of.get(kind)
    if fields_of is None:
        fields_of = _fields_of[kind] = _fields_getter(kind)
    try:
        fields: tuple[Any, ...] = fields_of(value)
    except AttributeError:  # a field that was never set
        return digest((value,), {})
    return fields if fields and FIXED.issuperset(map(type, fields)) else digest((value,), {})


def _fields_getter(kind: type) -> Callable[[Any], tuple[Any, ...]]:
    names = field_names(kind) or ()
    if not names:
        return lambda _value: ()
    get = attrgetter(*names)
    return get if len(names) > 1 else lambda value: (get(value),)
