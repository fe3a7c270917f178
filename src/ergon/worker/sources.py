"""Signals that come from another system: a message queue, a mailbox, a table that a web hook fills.

What a crash after each await leaves behind: after `poll`, nothing; after a signal is sent, a signal in the log that
its source will bring again, where its key shows that it is known; after `done`, nothing. So each arrives once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final, Protocol

from msgspec import Struct

from ergon.core.codec import encode
from ergon.core.commit import Message, MessageKind
from ergon.core.names import check_name
from ergon.errors import EncodingError, ErgonError, FlowNotFound, IllegalMove, InvalidName
from ergon.storage.log import ExecutionLog

logger = logging.getLogger("ergon.worker")

_NEVER: Final = (FlowNotFound, IllegalMove, EncodingError, InvalidName)
"""Why the log will not take a signal, however often it is brought."""


class IncomingSignal(Struct, frozen=True, kw_only=True):
    """A signal on its way from another system to a flow."""

    flow_id: str
    name: str
    value: Any = None
    key: str
    """What the other system knows it by: however often it is brought, the flow gets it once."""


class SignalSource(Protocol):
    """Another system that has signals for flows. Give it to `Worker(signal_sources=[...])`.

    Every worker that has it polls it, one call at a time; two workers may well bring the same signal.
    """

    async def poll(self) -> Sequence[IncomingSignal]:
        """What is there; called each `WorkerOptions.poll_seconds`. It may repeat what is not `done` yet."""
        ...

    async def done(self, signal: IncomingSignal, error: ErgonError | None) -> None:
        """The log keeps the signal, so forget it here; or, with an error, it never will.

        error: `FlowNotFound`, `IllegalMove` (the flow has ended), `EncodingError` or `InvalidName`.
        """
        ...


async def forward(log: ExecutionLog, source: SignalSource) -> None:
    """Send what a source has. Raises what `poll` and `done` raise, and `StoreError`: then it is brought again."""
    signals = await source.poll()
    # All at once, so that they share one commit.
    answers = await asyncio.gather(*(_send(log, signal) for signal in signals), return_exceptions=True)
    for signal, answer in zip(signals, answers, strict=True):
        if answer is None or isinstance(answer, _NEVER):
            await source.done(signal, answer)
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, _NEVER):
            raise answer


async def _send(log: ExecutionLog, signal: IncomingSignal) -> ErgonError | None:
    try:
        check_name("signal name", signal.name)
        check_name("signal key", signal.key)
        await log.send(
            Message(signal.flow_id, MessageKind.SIGNAL, signal.name, encode(signal.value), signal.key)
        )
    except _NEVER as error:
        logger.warning("a signal for flow %s came to nothing: %s", signal.flow_id, error)
        return error
    return None
