"""Where whoever creates flows finds a worker of this process that runs them at once.

A flow that is created by a process with a worker that fits, has room and has nothing else to claim is created as that
worker's own: it begins when its row is durable, without the second write that a claim is. Who creates and who works
know nothing of each other; they meet here, by the log both use. Who waits for a flow asks here, too, whether a worker
of this process runs it: then the log's next hints tell of its end, and there is nothing to look for yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from ergon.core.commit import FlowRecord, NewFlow
from ergon.storage.log import ExecutionLog


class EagerStarter(Protocol):
    """A worker, as far as whoever creates flows needs to know it."""

    def takes(self, flows: Sequence[NewFlow]) -> bool:
        """True while it would run these flows, and nothing waits that should run before them."""
        ...

    async def create(self, flows: Sequence[NewFlow]) -> list[FlowRecord | None]:
        """Create flows as `ExecutionLog.create_all` does, and run those that fit at once."""
        ...

    def runs(self, flow_id: str) -> bool:
        """True while it has the flow and has not heard that anybody took it away: its end is still to be hinted."""
        ...


_STARTERS: Final = "_eager_starters"
"""Where a log keeps those that were offered for it: they go with it, and it need not be hashable."""


def offer(log: ExecutionLog, starter: EagerStarter) -> Callable[[], None]:
    """Let flows that are created in `log` be started by this; returns how to withdraw it."""
    starters: list[EagerStarter] = vars(log).setdefault(_STARTERS, [])
    starters.append(starter)

    def withdraw() -> None:
        if starter in starters:
            starters.remove(starter)

    return withdraw


async def create(log: ExecutionLog, flows: Sequence[NewFlow]) -> list[FlowRecord | None]:
    """`ExecutionLog.create_all`, through a worker of this process where one is ready."""
    if log.starts_eagerly:
        for starter in vars(log).get(_STARTERS, ()):
            if starter.takes(flows):
                return await starter.create(flows)  # type: ignore[no-any-return]
    return await log.create_all(flows)


def runs(log: ExecutionLog, flow_id: str) -> bool:
    """True while a worker of this process surely has the flow, on a log that starts flows eagerly."""
    return any(starter.runs(flow_id) for starter in vars(log).get(_STARTERS, ()))
