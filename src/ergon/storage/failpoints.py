"""Die at a chosen write: the tool that crash tests are made with.

`ERGON_FAILPOINT=commit:7:post` kills this process with SIGKILL right after the transaction that holds its 7th
commit is durable and before anybody hears of it; `pre` kills before that transaction begins. The first word is
the write's name or `any`:

    commit, create, send              what flows do; a new flow; a signal or cancel
    move, retry, delete               an operator's pause, resume, kill, retry, reschedule; retry now; delete
    register, renew, keep, retire     a worker's lease: its start, its renewal, renewed by a thread, its end
    draining                          a worker says that it claims no more
    claim, release, park              flows taken; given back unread; set aside as unreadable
    reap                              what dead workers held is freed

Writes are counted in the order they are applied. `ERGON_FAILPOINT_TRACE=path` appends one line
`number name` for each write, so that a run without a failpoint tells how many there are.

When neither variable is set a log never looks here again.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from msgspec import Struct, field

ANY: Final = "any"
WRITES: Final = frozenset(
    {
        *("commit", "create", "send", "move", "retry", "delete", "register"),
        *("renew", "keep", "retire", "draining", "claim", "release", "park", "reap"),
    }
)
"""Every name."""


class Failpoint(Struct):
    """Counts writes and kills this process at the chosen one."""

    call: str = ANY
    number: int = 0
    """Which write of that name, from 1; 0 never kills."""
    moment: Literal["pre", "post"] = "pre"
    trace: str | None = None
    _counts: Counter[str] = field(default_factory=Counter)
    _due: bool = False

    def before(self, names: Sequence[str]) -> None:
        """Note that a transaction with these writes is about to begin."""
        lines = []
        for name in names:
            for counted in (name, ANY):
                self._counts[counted] += 1
                if counted == self.call and self._counts[counted] == self.number:
                    self._due = True
            lines.append(f"{self._counts[ANY]} {name}\n")
        if self.trace:
            with Path(self.trace).open("a", encoding="utf-8") as file:
                file.write("".join(lines))
        if self._due and self.moment == "pre":
            die()

    def after(self) -> None:
        """Note that the transaction is durable."""
        if self._due:
            die()


def die() -> None:
    """End this process as a power cut would: no handler, no clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


_armed: list[Failpoint] = []
"""At most one."""


def arm(spec: str, *, trace: str | None = None) -> Failpoint:
    """Set the failpoint of logs opened from now on, as the environment variable would."""
    _armed[:] = [_parse(spec, trace)]
    return _armed[0]


def current() -> Failpoint | None:
    """Return the failpoint that applies to a log opened now, or None."""
    if not _armed:
        spec, trace = os.environ.get("ERGON_FAILPOINT", ""), os.environ.get("ERGON_FAILPOINT_TRACE")
        if spec or trace:
            _armed.append(_parse(spec, trace))
    return _armed[0] if _armed else None


def _parse(spec: str, trace: str | None) -> Failpoint:
    if not spec:
        return Failpoint(trace=trace)
    call, _, rest = spec.partition(":")
    number, _, moment = rest.partition(":")
    if not call or not number.isdecimal() or moment not in ("pre", "post"):
        raise ValueError(f"ERGON_FAILPOINT is {spec!r}; write it as name:number:pre or name:number:post")
    if call not in WRITES | {ANY}:
        raise ValueError(
            f"ERGON_FAILPOINT is {spec!r}; no write is called {call!r}: {', '.join(sorted(WRITES))}"
        )
    return Failpoint(call, int(number), "post" if moment == "post" else "pre", trace)
