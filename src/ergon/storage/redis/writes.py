"""What waits for the group commit: each is one call of one script, and knows what its answer means.

A call carries a number that is its own. The server keeps the answers of a writer's latest calls, so one whose answer
was lost is sent again under the same number and is done once (`prelude.lua`). A commit with events needs none: its
events tell whether it landed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from ergon.core.commit import Commit, NewFlow
from ergon.errors import EncodingError, StoreError

T = TypeVar("T")
Done = Callable[["BaseException | None"], None]
pack: Final = msgspec.msgpack.Encoder().encode
_PRIORITY_MAX: Final = (1 << 63) - 1
BYTES_MAX: Final = 500 * 1024 * 1024
"""Redis takes no argument longer than 512 MB, and cuts the connection of whoever tries."""


class Write(Generic[T]):
    """A script call that somebody awaits."""

    __slots__ = ("flow_id", "future", "name", "read", "result", "script", "values")

    numbered = True

    def __init__(
        self,
        name: str,
        script: str,
        flow_id: str | int,
        values: Sequence[bytes],
        read: Callable[[Any], T],
        *,
        future: asyncio.Future[T] | None,
    ) -> None:
        """`flow_id` tells the part (a number is one); `read` makes the result of an answer, or raises what it means."""
        self.name, self.script, self.flow_id, self.values = name, script, flow_id, values
        self.read, self.future = read, future
        self.result: T | None = None
        check_size(values)

    def settle(self, answer: Any) -> None:
        """Take the answer. Raises when it is a refusal."""
        self.result = self.read(answer)

    def done(self, error: BaseException | None) -> None:
        """Tell whoever waits."""
        if self.future is None or self.future.done():
            return  # it was cancelled while it waited
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]

    def unknown(self, error: StoreError) -> StoreError:
        """What to say when nobody can find out whether it was done."""
        return StoreError(f"{error}; whether this was written is unknown")


class Create(Write["bool"]):
    """Creating a flow again changes nothing, so whoever waits may simply repeat it."""

    __slots__ = ()

    def unknown(self, error: StoreError) -> StoreError:
        return error


def check_size(values: Sequence[bytes]) -> None:
    """Raise `EncodingError` for what the server would cut the connection for."""
    for value in values:
        if len(value) > BYTES_MAX:
            raise EncodingError(f"a value of {len(value)} bytes is larger than Redis can keep (512 MB)")


def new_flow_fields(flow: NewFlow) -> dict[str, Any]:
    """A new flow as `insert` in `flows.lua` takes it."""
    if not -_PRIORITY_MAX <= flow.priority <= _PRIORITY_MAX:
        raise EncodingError(f"priority {flow.priority} has more than 63 bits")
    return {
        "id": flow.id,
        "name": flow.name,
        "input": flow.input,
        "queue": flow.queue,
        "version": flow.version,
        "priority": str(flow.priority),
        "rank": f"{_PRIORITY_MAX - flow.priority:020d}",
        "start_at": None if flow.start_at is None else float(flow.start_at),
        "delay": None if flow.delay_seconds is None else float(flow.delay_seconds),
        "timeout": None if flow.timeout_seconds is None else float(flow.timeout_seconds),
        "parent_id": flow.parent_id,
        "parent_op": flow.parent_op,
        "close": flow.close_with_parent,
        "tags": msgspec.json.encode(sorted({*flow.tags})).decode(),
        "owner": flow.owner,
    }


What = Commit | Write[Any]
