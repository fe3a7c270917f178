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
from itertools import repeat
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar
from zlib import crc32

from ergon.core.empty import NO_ENTRIES
from ergon.errors import NotAllowedInFlow, UsageError
from ergon.replay.exits import ends_process
from ergon.replay.operations import waiting_place
from ergon.replay.tasks import CallbackScope, FlowFuture, FlowTask, Scope

if TYPE_CHECKING:
    from ergon.replay.machine import FlowMachine

T = TypeVar("T")

TURN_CALLBACKS_MAX: Final = 2_000_000
"""A turn that runs more callbacks than this spins without waiting for anything."""

# Before 3.12 `current_task` is written in Python; the dict behind it is quicker to ask.
_current_task: Final[Callable[..., Any]] = (
    asyncio.current_task if sys.version_info >= (3, 12) else asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]  # noqa: SLF001
)


class _Ready(list[Any]):
    """A callback in the ready queue, as asyncio's `Handle` but made for every wake-up: [context, callback, args]."""

    __slots__ = ()

    def cancel(self) -> None:
        """Do not call it."""
        self.clear()

    def cancelled(self) -> bool:
        """True when it will not be called."""
        return not self


class FlowTimer(asyncio.TimerHandle):
    """A timer armed by flow code. It fires when the machine delivers its event, never by itself."""

    __slots__ = ("_owner", "name", "op", "seconds", "sleeps")

    def __init__(  # noqa: PLR0917  # made for every wait
        self,
        op: str,
        when: float,
        callback: Callable[..., object],
        args: tuple[object, ...],
        loop: FlowLoop,
        context: contextvars.Context | None,
        *,
        owner: FlowTask[Any] | None = None,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self.op = op
        self.name = ""
        self.seconds = 0.0
        """How long from when it was armed; 0 when a time was given instead."""
        self.sleeps = False
        """Somebody just sleeps: its end limits nothing else."""
        self._owner = owner

    def ready(self) -> _Ready:
        """What to put into the ready queue; cancelling the timer still keeps it from being called."""
        return _Ready((self._context, self._ring, ()))  # type: ignore[attr-defined]

    def _ring(self) -> None:
        if not self.cancelled():
            self._callback(*self._args)  # type: ignore[attr-defined]

    @property
    def digest(self) -> str:
        """Of a sleep how long it is; else empty."""
        return f"{self.seconds!r}" if self.sleeps else ""

    @property
    def source(self) -> str:
        """Where the task that armed it waits now: `file.py:42`, or empty."""
        return waiting_place(self._owner) if self._owner is not None else ""

    def __str__(self) -> str:
        name = f" `{self.name}`" if self.name else ""
        where = f" ({self.source})" if self.source else ""
        return f"timer{name} as operation {self.op}{where}"


class FlowLoop(asyncio.AbstractEventLoop):
    """An asyncio event loop in which everything happens in a repeatable order."""

    __slots__ = (
        "_armed",
        "_callbacks",
        "_futures_numbered",
        "_ready",
        "_tasks_numbered",
        "_timer_heap",
        "machine",
        "now",
        "tasks",
        "timers",
    )

    def __init__(self, *, flow_id: str, now: float, machine: FlowMachine) -> None:
        self._ready: deque[_Ready] = deque()
        self.now = now
        """Flow time: when the last delivered event happened. It never goes back."""
        # Numbers are hashes (`tasks.py`). The same for a flow on every replay; different between flows, because
        # asyncio keeps the tasks of all loops in one set and equal hashes would make that set slow.
        base = (crc32(flow_id.encode()) & 0xFFFFFFF) << 32
        self._tasks_numbered = base
        self._futures_numbered = base | 1 << 31
        self._armed = 0
        self.timers: dict[str, FlowTimer] = NO_ENTRIES
        """The armed timers by operation id."""
        self._timer_heap: list[tuple[float, int, str]] | None = None
        self._callbacks: CallbackScope | None = None
        self.tasks: dict[int, FlowTask[Any]] = {}
        self.machine: FlowMachine | None = machine
        """Who drives this loop; `ergon.flows` asks it for operations. None once the flow has gone."""

    # -- driven by the machine -------------------------------------------------------------------------

    def run_until_quiet(self, callbacks_max: int = TURN_CALLBACKS_MAX) -> None:
        """Run everything that is ready, and what becomes ready by that, in order.

        Call between `enter` and `leave`. Raises `NotAllowedInFlow` when the flow spins without ever waiting.
        """
        ready = self._ready
        budget = repeat(None, callbacks_max)
        while True:
            try:
                for _ in budget:
                    if not ready:
                        return
                    handle = ready.popleft()
                    if handle:
                        context, callback, args = handle
                        context.run(callback, *args)
            except BaseException as error:  # a callback of the user's may raise anything
                if ends_process(error):
                    raise
                if not self._is_of_task(error):
                    self.call_exception_handler({"message": "exception in a callback", "exception": error})
            else:
                raise NotAllowedInFlow(_SPINNING)

    def _is_of_task(self, error: BaseException) -> bool:
        """Whether a task keeps it for whoever awaits the task; asyncio raises an exit from there as well."""
        return isinstance(error, SystemExit | KeyboardInterrupt) and any(
            task.done() and task._exception is error  # noqa: SLF001  # `exception()` would count as having been told
            for task in self.tasks.values()
        )

    def enter(self) -> asyncio.AbstractEventLoop | None:
        """Become the running loop; give the result to `leave`.

        Raises RuntimeError inside a task of the host loop: from Python 3.14 on a thread has one current task, so
        flow tasks could not run there. It is refused on every version, so that it is found on any.
        """
        host = events._get_running_loop()  # noqa: SLF001
        if host is not None and _current_task(host) is not None:
            raise RuntimeError(
                "a flow must be driven from a plain callback of the host loop, not from a task"
            )
        events._set_running_loop(self)  # noqa: SLF001
        return host

    leave = staticmethod(events._set_running_loop)  # noqa: SLF001  # no frame of its own: it ends every turn
    """Give the thread back to the loop that was running before `enter`, which returned it."""

    def halt(self) -> None:
        """Run nothing more in this turn. What was about to run is kept for `FlowMachine.dismiss`."""
        running = self._ready
        self._ready = deque(running)
        running.clear()  # `run_until_quiet` holds on to this one

    def clear_ready(self) -> None:
        """Forget what was about to run."""
        self._ready.clear()

    def detach(self) -> None:
        """Forget the machine: no flow code runs here any more."""
        self.machine = None

    def next_task_number(self) -> int:
        """The hash of the next task."""
        self._tasks_numbered = number = self._tasks_numbered + 1
        return number

    def next_future_number(self) -> int:
        """The hash of the next future that needs one."""
        self._futures_numbered = number = self._futures_numbered + 1
        return number

    def current_scope(self) -> Scope:
        """Where an operation asked for right now gets its id."""
        task = _current_task(self)
        if task is None:
            if self._callbacks is None:
                self._callbacks = CallbackScope()
            return self._callbacks
        if isinstance(task, FlowTask):
            return task
        raise NotAllowedInFlow(
            f"{task!r} was made by calling a Task class; flows need `asyncio.create_task` or a TaskGroup, which "
            "give it a place in the flow."
        )

    def next_timer(self) -> FlowTimer | None:
        """The armed timer that is due first, or None."""
        heap = self._timer_heap
        while heap:
            timer = self.timers.get(heap[0][2])
            if timer is not None:
                return timer
            heappop(heap)
        return None

    @property
    def has_timers(self) -> bool:
        """True when any timer is armed."""
        return bool(self.timers)

    def take_due(self, now: float) -> list[FlowTimer]:
        """The armed timers that are due by `now`, in the order they fire. Each is returned once."""
        heap, due = self._timer_heap, []
        while heap and heap[0][0] <= now:
            timer = self.timers.get(heappop(heap)[2])
            if timer is not None:
                due.append(timer)
        return due

    def fire(self, op: str) -> bool:
        """Make the timer `op` ready. False when it is not armed (any more)."""
        timer = self.timers.get(op)
        if timer is None:
            return False
        del self.timers[op]
        self._ready.append(timer.ready())
        return True

    def armed(self) -> list[FlowTimer]:
        """All armed timers, the earliest first."""
        return sorted(self.timers.values(), key=asyncio.TimerHandle.when)

    def armed_ids(self) -> set[str]:
        """The ids of all armed timers."""
        return set(self.timers)

    # -- what flow code and asyncio call ---------------------------------------------------------------

    def time(self) -> float:
        """Flow time: when the last delivered event happened, in seconds since 1970-01-01 UTC."""
        return self.now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> _Ready:
        handle = _Ready((context if context is not None else contextvars.copy_context(), callback, args))
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> FlowTimer:
        timer = self.call_at(self.now + delay, callback, *args, context=context)
        timer.seconds = float(delay)
        timer.sleeps = callback is _WAKE_SLEEPER
        return timer

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> FlowTimer:
        """Arm a durable timer. Writes nothing until it fires, and nothing at all when it is cancelled first."""
        if when != when:  # noqa: PLR0124 - only NaN is not itself; in the heap it would hide every other timer
            raise UsageError("a timer of NaN seconds: give a number")
        if when <= self.now:
            timer = FlowTimer("", when, callback, args, self, context)
            self._ready.append(timer.ready())
            return timer
        op = self.current_scope().next_timer()
        if not self.timers:
            self.timers = {}
        timer = self.timers[op] = FlowTimer(
            op, when, callback, args, self, context, owner=_current_task(self)
        )
        self._armed += 1
        if self._timer_heap is None:
            self._timer_heap = []
        heappush(self._timer_heap, (when, self._armed, op))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        assert isinstance(handle, FlowTimer)
        if handle.op not in self.timers:
            return
        del self.timers[handle.op]
        if self.machine is not None:
            self.machine.timer_cancelled(handle.op)
        if self._timer_heap is not None and len(self._timer_heap) > 2 * len(self.timers) + 64:
            self._timer_heap = [entry for entry in self._timer_heap if entry[2] in self.timers]
            heapify(self._timer_heap)

    def create_future(self) -> FlowFuture[Any]:
        return FlowFuture(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> FlowTask[T]:
        """A task in the scope of the running one. `eager_start=True` (Python 3.14) is honoured.

        A step that is handed to `gather` gets no task of its own: nobody but `gather` would see it.
        """
        ask_alone = getattr(coro, "ask_alone", None)
        if ask_alone is not None:
            coro.check_unused()  # type: ignore[union-attr]
            if _is_asked_by_gather():
                return ask_alone()  # type: ignore[no-any-return]
        return self.spawn(coro, name=None if name is None else str(name), context=context, **options)

    def spawn(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        path: str | None = None,
        **options: Any,
    ) -> FlowTask[T]:
        """Create a task. `path`: not the next one below the running task's."""
        if path is None:
            path = self.current_scope().next_child()
        if context is None:
            context = contextvars.copy_context()  # one for the task and for its callback, instead of one each
        task: FlowTask[T] = FlowTask(coro, loop=self, path=path, name=name, context=context, **options)
        self.tasks[task.ergon_number] = task
        task.add_done_callback(_forget, context=context)
        return task

    # Always False; asked for each future, so it gets no frame of its own.
    get_debug = staticmethod(bool)  # pyright: ignore[reportAssignmentType]

    def set_debug(self, enabled: bool) -> None:  # noqa: FBT001
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
        self.call_exception_handler(context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.machine is not None:
            self.machine.report(context)

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: unfinished generators are left alone."""


def _forget(task: asyncio.Task[Any]) -> None:
    loop: Any = task.get_loop()
    loop.tasks.pop(hash(task), None)


_WAKE_SLEEPER: Final = asyncio.futures._set_result_unless_cancelled  # type: ignore[attr-defined]  # noqa: SLF001
"""What `asyncio.sleep` has called when it is over."""


def _is_asked_by_gather() -> bool:
    """True when `gather` made whoever called the caller make a task."""
    ensure_future = sys._getframe(2)  # noqa: SLF001
    gather = ensure_future.f_back
    return ensure_future.f_code is _ENSURE_FUTURE and gather is not None and gather.f_code is _GATHER


_GATHER: Final = asyncio.gather.__code__
_ENSURE_FUTURE: Final = (
    asyncio.tasks._ensure_future if sys.version_info < (3, 12) else asyncio.ensure_future  # type: ignore[attr-defined]  # noqa: SLF001
).__code__
"""The function that `gather` calls."""


_SPINNING: Final = (
    f"the flow ran {TURN_CALLBACKS_MAX:,} callbacks without waiting for a step, timer, signal or child; "
    "it probably loops on `asyncio.sleep(0)`. Wait for something durable instead"
)

_OUTSIDE: Final = (  # noqa: SIM905  # reads better as words
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
FlowLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
