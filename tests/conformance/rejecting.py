"""Run behaviours of the suite as plain functions, and tell which of them a log fails."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from ergon.storage.log import ExecutionLog
from ergon.testing.conformance.suite import Behaviour, behaviours


@dataclass
class OneLog:
    """A store that makes each handle anew."""

    make: Callable[[], ExecutionLog]

    def open(self, namespace: str = "") -> ExecutionLog:
        return self.make()

    async def interrupt(self) -> None:
        """Nothing can."""


def failing(make: Callable[[], ExecutionLog], subjects: Iterable[str], names: Collection[str]) -> set[str]:
    """Which of these behaviours, in the files of these subjects, such a log does not have."""
    found = behaviours(subjects)
    return {name for name in names if not all(passes(make, found[name], case) for case in cases(found[name]))}


def passes(make: Callable[[], ExecutionLog], behaviour: Behaviour, case: dict[str, Any]) -> bool:
    """Run one behaviour on a log of its own."""
    try:
        asyncio.run(_run(make, behaviour, case))
    except (Exception, pytest.fail.Exception):  # the latter: `raises` that saw nothing raised
        return False
    return True


async def _run(make: Callable[[], ExecutionLog], behaviour: Behaviour, case: dict[str, Any]) -> None:
    wanted = inspect.signature(behaviour).parameters
    if "store" in wanted:
        await behaviour(store=OneLog(make), **case)
        return
    async with make() as log:
        await behaviour(log=log, **case)


def cases(behaviour: Behaviour) -> Iterator[dict[str, Any]]:
    """What pytest's `parametrize` would call it with."""
    axes = [_axis(*mark.args) for mark in getattr(behaviour, "pytestmark", ()) if mark.name == "parametrize"]
    for chosen in itertools.product(*axes):
        yield {name: value for some in chosen for name, value in some.items()}


def _axis(names: str, values: Iterable[Any]) -> list[dict[str, Any]]:
    each = [name.strip() for name in names.split(",")]
    if len(each) == 1:
        return [{each[0]: value} for value in values]
    return [dict(zip(each, value, strict=True)) for value in values]
