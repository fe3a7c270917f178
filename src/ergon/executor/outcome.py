"""What running a flow here and now came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from ergon.errors import UsageError

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Completed(Generic[R]):
    """The flow returned."""

    result: R


@dataclass(frozen=True, slots=True)
class Suspended:
    """The flow can only wait and has left memory; a worker, or running it again, lets it go on."""

    reason: str
    """One sentence: what it waits for."""
    waits: tuple[dict[str, Any], ...] = ()
    """The same as data: each with `kind`, `name`, and, where known, `source` (the line), `stack`, `since` and `due`.

    The kinds are timer, signal, child, retry, start, and code: something that only the flow's own code can give.
    """

    @property
    def result(self) -> NoReturn:
        """There is none yet: raises `UsageError`, so that `outcome.result` of a flow that never waits reads well."""
        raise _NoResult(
            f"the flow is suspended and has no result yet: {self.reason.rstrip('.')}. Run it again when that has "
            "come, or let a worker go on with it; `isinstance(outcome, Completed)` tells which it is"
        )


class _NoResult(UsageError, AttributeError):
    """Also what `hasattr` and `getattr` with a default expect of an object without it."""


Outcome = Completed[R] | Suspended
"""What `Executor.run` returns."""
