"""The event loop a flow's code runs on: a first-in-first-out ready queue, virtual time, timers, tasks.

It never waits. The machine (`machine.py`) enters it from a host callback, runs it until nothing is ready, and
leaves; between two such turns no flow code runs. What would let the outside in (sockets, threads, subprocesses,
signals of the operating system) is refused with an error that says where it belongs.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from heapq import heapify, heappop, heappush
from typing import Any, Final, NoReturn, TypeVar
from zlib import crc32

from ergon.errors import NotAllowedInFlow
from ergon.replay import ordering
from ergon.replay.tasks import FlowFuture, FlowTask, Scope

T = TypeVar("T")

TURN_CALLBACKS_MAX: Final = 2_000_000
"""A turn that runs more callbacks than this spins without waiting for anything."""

# Before 3.12 `current_task` is written in Python; the dict behind it is quicker to ask.
_current_task: Final[Callable[..., Any]] = (
    asyncio.current_task if sys.version_info >= (3, 12) else asyncio.tasks._current_tasks.get  # noqa: SLF001
)

_WAIT_FOR: Final = asyncio.wait_for.__code__


class _Ready(asyncio.Handle):
    """A callback in the ready queue; made for every wake-up, so it skips what only debug mode needs."""

    __slots__ = ()

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[object, ...],
        loop: FlowLoop,
        context: contextvars.Context | None,
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = context if context is not None else contextvars.copy_context()
        self._cancelled = False
        self._repr = None


class FlowTimer(asyncio.TimerHandle):
    """A timer armed by flow code. It fires when the machine delivers its event, never by itself."""

    def __init__(
        self,
        op: str,
        when: float,
        callback: Callable[..., object],
        args: tuple[object, ...],
        loop: FlowLoop,
        context: contextvars.Context | None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.op = op
        self.source = ""
        self.name = ""


class FlowLoop(asyncio.AbstractEventLoop):
    """An asyncio event loop in which everything happens in a repeatable order."""

    def __init__(self, *, flow_id: str, now: float, on_error: Callable[[dict[str, Any]], None]) -> None:
        self._ready: deque[asyncio.Handle] = deque()
        self._now = now
        # Numbers are hashes (`tasks.py`). The same for a flow on every replay; different between flows, because
        # asyncio keeps the tasks of all loops in one set and equal hashes would make that set slow.
        self._numbers = (crc32(flow_id.encode()) & 0xFFFFFFF) << 32
        self._timers: dict[str, FlowTimer] = {}
        self._timer_heap: list[tuple[float, int, str]] = []
        self._on_error = on_error
        self._callbacks = Scope("cb")
        self._abandon_timer: Callable[[str], None] | None = None
        self.tasks: dict[int, FlowTask[Any]] = {}
        self.machine: Any = None
        """The machine that drives this loop; `ergon.flows` asks it for operations."""

    # -- driven by the machine -------------------------------------------------------------------------

    def run_until_quiet(self) -> None:
        """Run everything that is ready, and what becomes ready by that, in order.

        Call inside `entered`. Raises RuntimeError when the flow spins without ever waiting.
        """
        ready = self._ready
        budget = TURN_CALLBACKS_MAX
        while ready:
            try:
                while ready:
                    handle = ready.popleft()
                    if not handle._cancelled:  # type: ignore[attr-defined]  # noqa: SLF001
                        handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]  # noqa: SLF001
                    budget -= 1
                    if budget < 0:
                        ready.clear()
                        raise RuntimeError(_SPINNING)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # a callback of the user's may raise anything
                if budget < 0:
                    raise
                self.call_exception_handler({"message": "exception in a callback", "exception": error})

    def enter(self) -> tuple[asyncio.AbstractEventLoop | None, Any]:
        """Become the running loop; give the result to `leave`."""
        token = (events._get_running_loop(), sys.get_asyncgen_hooks())  # noqa: SLF001
        events._set_running_loop(self)  # noqa: SLF001
        # A generator that flow code leaves unfinished must not be closed by the host loop when the collector
        # happens to find it: that would run flow code at a moment no replay can repeat.
        sys.set_asyncgen_hooks(firstiter=None, finalizer=_leave_unfinished)
        return token

    def leave(self, token: tuple[asyncio.AbstractEventLoop | None, Any]) -> None:
        """Give the thread back to the loop that was running before `enter`."""
        sys.set_asyncgen_hooks(*token[1])
        events._set_running_loop(token[0])  # noqa: SLF001

    def advance_to(self, at: float) -> None:
        """Move flow time forward; it never goes back."""
        self._now = max(self._now, at)

    def clear_ready(self) -> None:
        """Forget what was about to run (the flow is being stopped)."""
        self._ready.clear()

    def next_number(self) -> int:
        """Creation numbers of tasks and futures."""
        self._numbers += 1
        return self._numbers

    def current_scope(self) -> Scope:
        """Where an operation asked for right now gets its id."""
        task = _current_task(self)
        return task.scope if task is not None else self._callbacks  # type: ignore[attr-defined, no-any-return]

    def next_timer(self) -> FlowTimer | None:
        """The armed timer that is due first, or None."""
        heap = self._timer_heap
        while heap:
            timer = self._timers.get(heap[0][2])
            if timer is not None:
                return timer
            heappop(heap)
        return None

    def take_due(self, now: float) -> list[FlowTimer]:
        """The armed timers that are due by `now`, in the order they fire. Each is returned once."""
        heap, due = self._timer_heap, []
        while heap and heap[0][0] <= now:
            timer = self._timers.get(heappop(heap)[2])
            if timer is not None:
                due.append(timer)
        return due

    def fire(self, op: str) -> bool:
        """Make the timer `op` ready. False when it is not armed (any more)."""
        timer = self._timers.pop(op, None)
        if timer is None:
            return False
        self._ready.append(timer)
        return True

    def armed(self) -> list[FlowTimer]:
        """All armed timers, the earliest first."""
        return sorted(self._timers.values(), key=lambda timer: timer.when())

    def armed_ids(self) -> set[str]:
        """The ids of all armed timers."""
        return set(self._timers)

    def on_timer_cancelled(self, hook: Callable[[str], None]) -> None:
        """Call `hook` with the id of each timer that is cancelled while armed."""
        self._abandon_timer = hook

    # -- what flow code and asyncio call ---------------------------------------------------------------

    def time(self) -> float:
        """Flow time: when the last delivered event happened, in seconds since 1970-01-01 UTC."""
        return self._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = _Ready(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> FlowTimer:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> FlowTimer:
        """Arm a durable timer. Writes nothing until it fires, and nothing at all when it is cancelled first."""
        scope = self.current_scope()
        if when <= self._now:
            timer = FlowTimer("", when, callback, args, self, context)
            self._ready.append(timer)
            return timer
        timer = FlowTimer(scope.next_timer(), when, callback, args, self, context)
        timer._scheduled = True  # type: ignore[attr-defined]  # noqa: SLF001  # so that cancel() tells us
        self._timers[timer.op] = timer
        heappush(self._timer_heap, (when, self.next_number(), timer.op))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        assert isinstance(handle, FlowTimer)
        if self._timers.pop(handle.op, None) is None:
            return
        if self._abandon_timer is not None:
            self._abandon_timer(handle.op)
        if len(self._timer_heap) > 2 * len(self._timers) + 64:
            self._timer_heap = [entry for entry in self._timer_heap if entry[2] in self._timers]
            heapify(self._timer_heap)

    def create_future(self) -> FlowFuture[Any]:
        return FlowFuture(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **_unused: Any,
    ) -> FlowTask[T]:
        made = ordering.created_ahead(self, coro)
        if made is not None:
            return made
        return self.spawn(coro, name=None if name is None else str(name), context=context)

    def spawn(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        scope: Scope | None = None,
    ) -> FlowTask[T]:
        """Create a task in the scope of the running one."""
        if scope is None:
            parent = self.current_scope()
            # asyncio.wait_for makes a task on Python 3.11 and awaits directly from 3.12 on. Letting that task share
            # its caller's scope keeps ids, and so histories, the same across versions.
            scope = parent if _called_by_wait_for() else parent.next_child()
        task: FlowTask[T] = FlowTask(coro, loop=self, scope=scope, name=name, context=context)
        number = task.number
        self.tasks[number] = task
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(hash(task), None)

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Ignored: asyncio's debug mode reads the wall clock."""

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def get_task_factory(self) -> None:
        return None

    def get_exception_handler(self) -> None:
        return None

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self._on_error(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._on_error(context)

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: unfinished generators are left alone."""


def _called_by_wait_for() -> bool:
    """True when the task being created is the one `asyncio.wait_for` makes around its awaitable."""
    frame = sys._getframe(3)  # wait_for > ensure_future > create_task > spawn > here  # noqa: SLF001
    for _ in range(3):
        if frame.f_code is _WAIT_FOR:
            return frame.f_locals.get("timeout") is None or frame.f_locals["timeout"] > 0
        back = frame.f_back
        if back is None or back.f_globals.get("__name__") != "asyncio.tasks":
            return False
        frame = back
    return False


def _leave_unfinished(_generator: object) -> None:
    """Finalizer for async generators of flows: closing one would run flow code at a random moment."""


_SPINNING: Final = (
    f"the flow ran {TURN_CALLBACKS_MAX:,} callbacks without waiting for a step, timer, signal or child; "
    "it probably loops on `asyncio.sleep(0)`. Wait for something durable instead"
)

_OUTSIDE: Final = (
    "run_in_executor set_default_executor getaddrinfo getnameinfo create_connection create_server sendfile "
    "start_tls create_unix_connection create_unix_server connect_accepted_socket create_datagram_endpoint "
    "connect_read_pipe connect_write_pipe subprocess_shell subprocess_exec add_reader remove_reader add_writer "
    "remove_writer sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto sock_connect "
    "sock_accept sock_sendfile add_signal_handler remove_signal_handler call_soon_threadsafe run_forever "
    "run_until_complete stop close set_task_factory set_exception_handler shutdown_default_executor"
).split()


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(_self: FlowLoop, *_args: object, **_kwargs: object) -> NoReturn:
        raise NotAllowedInFlow(
            f"`loop.{name}` reaches outside the flow, and its outcome would differ on replay. "
            "Put this work in a function decorated with @step and await that: its result is recorded."
        )

    refuse.__name__ = name
    return refuse


for _name in _OUTSIDE:
    setattr(FlowLoop, _name, _refusing(_name))
FlowLoop.__abstractmethods__ = frozenset()
