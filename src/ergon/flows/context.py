"""Where am I? Inside a flow, inside a step, or outside both.

A flow is recognised by the running event loop, which is its own; a step by a context variable that the executor
sets around the body. Both answer the same small set of requests, so that a durable wait reads the same in either.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, Final, Protocol

from ergon.errors import NotInFlow
from ergon.replay.loop import FlowLoop
from ergon.replay.machine import FlowMachine
from ergon.replay.operations import NOT_THE_USERS, Place


class StepContext(Protocol):
    """What a running step body may ask for."""

    @property
    def flow_id(self) -> str:
        """The flow this step belongs to."""
        ...

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step, different for every other step call."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        ...

    def now(self) -> float:
        """The log's clock."""
        ...

    def wait_timer(self, seconds: float, name: str) -> Coroutine[Any, Any, None]:
        """A durable timer, recorded under the step."""
        ...

    def wait_signal(self, name: str) -> Coroutine[Any, Any, str]:
        """The next value of a signal as JSON, recorded under the step."""
        ...

    def start_child(self, request: Any) -> tuple[str, Callable[[], Coroutine[Any, Any, Any]]]:
        """Start a child flow, recorded under the step; its flow id, and how to wait for its outcome."""
        ...

    def call_plain(
        self, step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """Call the plain function of another step off the event loop, as part of this one."""
        ...


step_context: Final[ContextVar[StepContext | None]] = ContextVar("ergon_step", default=None)


def current_machine() -> FlowMachine | None:
    """The machine of the flow whose code is running right now, or None."""
    loop = asyncio._get_running_loop()  # noqa: SLF001
    return loop.machine if type(loop) is FlowLoop else None


def need_machine(what: str) -> FlowMachine:
    """The running flow's machine; raises `NotInFlow` elsewhere."""
    machine = current_machine()
    if machine is None:
        raise NotInFlow(f"{what} works only inside a flow: call it from a function decorated with @flow.")
    return machine


def awaiting_place() -> Place | None:
    """The source place that awaits the caller; None when that is a task of its own, as `gather` makes."""
    frame = sys._getframe(2)  # noqa: SLF001
    module = frame.f_globals.get("__name__", "")
    return None if module.startswith(NOT_THE_USERS) else (frame.f_code, frame.f_lasti)


def caller_place(depth: int = 2) -> Place:
    """The source place of the caller `depth` frames up."""
    frame = sys._getframe(depth)  # noqa: SLF001
    return frame.f_code, frame.f_lasti
