"""Loops that tick: sleeping, logging and cancellation are written once, here."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ergon.errors import LeaseLost, LogClosed, StoreError
from ergon.executor.refusals import REMIND_SECONDS

logger = logging.getLogger("ergon.worker")

AFTER_ERROR_SECONDS: Final = 0.5


async def every(
    seconds: float, tick: Callable[[], Awaitable[object]], *, name: str, first: float | None = None
) -> LogClosed | LeaseLost:
    """Call `tick` each `seconds`, the first time after `first` (None: as long), until cancelled or the log is closed.

    Returns what ended it.

    A tick that fails is logged and tried again next time: no service of a worker ends by an error. What the log
    refuses, as it does for long when its disk is full, is told no more than once a minute.
    """
    told_at = -math.inf
    await asyncio.sleep(seconds if first is None else first)
    while True:
        try:
            await tick()
        except (LogClosed, LeaseLost) as error:
            return error
        except StoreError as error:
            if (now := time.monotonic()) - told_at >= REMIND_SECONDS:
                told_at = now
                logger.warning(
                    "%s: %s; trying again every %g s", name, error, max(seconds, AFTER_ERROR_SECONDS)
                )
            await asyncio.sleep(AFTER_ERROR_SECONDS)
        except Exception:
            logger.exception("%s failed; trying again in %g s", name, max(seconds, AFTER_ERROR_SECONDS))
            await asyncio.sleep(AFTER_ERROR_SECONDS)
        await asyncio.sleep(seconds)
