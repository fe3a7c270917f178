"""Ids for flows that were given none."""

from __future__ import annotations

import os
from typing import Final

_VARIANT: Final = "89ab"


def new_flow_id(now: float) -> str:
    """A UUID of version 7 (RFC 9562): the time in milliseconds, then 74 random bits.

    Ordered by time, so that new flows are neighbours in the log's index, and not spread over all of it.
    """
    time, chance = f"{int(now * 1000):012x}", os.urandom(10).hex()
    variant = _VARIANT[int(chance[3], 16) & 3]
    return f"{time[:8]}-{time[8:]}-7{chance[:3]}-{variant}{chance[4:7]}-{chance[8:]}"
