"""What a scenario says about itself, and the step that most of them are made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ergon import step
from tests.crash.program import Stage, effect
from tests.crash.snapshot import Snapshot

Check = Callable[[Snapshot], Iterator[str]]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A client, the flows its worker runs, and what must come out."""

    main: Callable[[Stage], Awaitable[None]]
    flows: tuple[Any, ...] = ()
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """For each flow id: the labels of the tokens in its result, in order (sorted for sets of branches)."""
    options: dict[str, Any] = field(default_factory=dict)
    """For the worker."""
    queues: tuple[str, ...] = ("default",)
    timers: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """For each flow id: how long each of its timers lasts, in the order they fire."""
    may_drop: bool = False
    """Open steps may be given up: the flow is cancelled, or stops waiting."""
    ends: dict[str, str] = field(default_factory=dict)
    """For each flow id that does not end by itself: its last status."""
    deleted: frozenset[str] = frozenset()
    """Flows that an operator removes."""
    retried: bool = False
    """An operator tries failed flows again: `failed` is no end."""
    check: Check | None = None
    """What else must hold of the final rows."""
    prepare: Callable[[], None] | None = None
    """Called in the process that plays it, before anything else."""
    points_max: int | None = None
    """Try a sample of this many points where each takes long; None: all."""
    points: tuple[str, ...] = ()
    """Try these points only, where all others are those of another scenario."""


@step
async def act(label: str, saw: list[str]) -> str:
    return await effect(label, *saw)
