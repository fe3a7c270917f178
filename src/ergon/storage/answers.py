"""Wait for many answers of a log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def hear_error(answered: asyncio.Future[Any]) -> None:
    """To be called when it is done: an error is told to whoever asked, and to nobody if they were cancelled."""
    if not answered.cancelled():
        answered.exception()


async def all_answers(futures: Sequence[asyncio.Future[T]]) -> list[T]:
    """Wait for all of them; raises the first error, in the order of `futures`, once all are answered."""
    found: list[T] = []
    failure: Exception | None = None
    try:
        for future in futures:
            try:
                found.append(await future)
            except Exception as error:  # noqa: BLE001 - the others are answered too
                failure = failure or error
    except BaseException:  # cancelled: nobody wants the rest
        for future in futures:
            future.cancel()
        raise
    if failure is None:
        return found
    try:
        raise failure
    finally:
        del failure  # or its traceback would lead back to it
