"""A dict that stays empty.

A flow in memory has a dozen dicts that most flows never fill. One each would be a dozen objects more to make and to
forget; worse, the garbage collector runs after so many new ones. Whoever fills one puts a dict of its own in its place.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final, cast

NO_ENTRIES: Final = cast("dict[Any, Any]", MappingProxyType({}))
"""Reads as an empty dict; has no method that writes, so whoever forgets to replace it gets an error."""
