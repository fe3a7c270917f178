"""How deeply JSON text is nested, where the interpreter does not count that.

Until Python 3.13 it counts the calls that a reader or writer in C nests, and stops them at a number. From 3.14 on it
stops them where the thread's stack ends, and so what one thread has written another could not read.
"""

from __future__ import annotations

import re
import sys
from itertools import accumulate
from typing import Final

from ergon.core.codec.walk import DEPTH_MAX

CHARS_SHALLOW: Final = 2 * DEPTH_MAX if sys.version_info >= (3, 14) else sys.maxsize
"""Text of fewer characters is not nested too deeply, or the interpreter has found out."""

_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_BRACKETS: Final = b"[]{}"
_OTHERS: Final = bytes(byte for byte in range(256) if byte not in _BRACKETS)
_STEP: Final = {bracket: 1 if bracket in b"[{" else -1 for bracket in _BRACKETS}


def nested_too_deeply(text: str | bytes) -> bool:
    """Tell whether JSON text has parts nested deeper than `DEPTH_MAX`."""
    raw = text if isinstance(text, bytes) else text.encode()
    if raw.count(b"[") + raw.count(b"{") <= DEPTH_MAX:
        return False
    brackets = _STRING.sub(b"", raw).translate(None, _OTHERS)
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > DEPTH_MAX
