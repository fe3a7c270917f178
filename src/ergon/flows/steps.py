"""`@step`: a unit of work whose result is recorded.

Calling a step inside a flow asks the flow's machine for its result: from the history, or by running the body once
(the executor does that, on the host's event loop). Calling a step inside another step's body just runs the
function, where it would run by itself: it is part of that step.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Final,
    Generic,
    NoReturn,
    ParamSpec,
    TypeVar,
    TypeVarTuple,
    overload,
)

from msgspec import Struct, field

from ergon.core.checks import check_timeout
from ergon.core.codec import Decoder, decoder_for, hints_of
from ergon.core.names import check_name
from ergon.core.retry import RetryPolicy, check_policy
from ergon.errors import ArgumentsMismatch, NotInFlow, UsageError
from ergon.flows.callables import (
    arity,
    check_order,
    check_process_step,
    is_async,
    public_name,
    signature_of,
    stand_for,
)
from ergon.flows.context import StepContext, caller_place, step_context
from ergon.flows.step_calls import StepCall
from ergon.replay.loop import FlowLoop
from ergon.replay.operations import Place

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")
Ts = TypeVarTuple("Ts")


class Happened(Struct, Generic[R], frozen=True, kw_only=True):
    """Answer of a `verify` callback: the interrupted step did happen, with this result."""

    result: R


DID_NOT_HAPPEN: Final = object()
"""Answer of a `verify` callback: the interrupted step did not happen; run it again."""


class StepOptions(Struct, frozen=True, kw_only=True):
    """How a step is run."""

    retry: RetryPolicy = RetryPolicy.NONE
    timeout: float | None = None
    """Seconds one attempt may take; None: no limit."""
    at_most_once: bool = False
    verify: Callable[..., Any] | None = None
    process: bool = False
    """Run a plain function in another process, for work that keeps a core busy."""
    depends_on: tuple[str, ...] | None = None
    inputs: Mapping[str, str] = field(default_factory=dict)


class Step(Generic[P, R]):
    """A function whose results are recorded. Made by `@step` and `run_step`."""

    def __init__(
        self, function: Callable[..., Any], *, name: str | None = None, options: StepOptions
    ) -> None:
        check_order("step", function)
        if not callable(function):
            raise UsageError(f"@step needs a function, not {function!r}")
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise UsageError(
                f"@step needs a function that returns; `{public_name(function)}` has a `yield`, which makes it a "
                "generator, whose values cannot be recorded one by one. Return a list, or make each part a step"
            )
        stand_for(self, function)
        self.function = function
        self.options = options
        self.name = check_name("step name", name if name is not None else public_name(function))
        self.is_async = is_async(function)
        self.is_plain = self.is_async and options.timeout is None and not options.at_most_once
        """True when running it is calling it."""
        self.owners: tuple[type, ...] = ()
        """The classes that it is an attribute of: `charge = charge` in a class makes one of a function's step, too."""
        if options.process:
            check_process_step(function, is_async=self.is_async)
        self._signature = signature_of(function)
        self._positional_max, self._positional_min = arity(self._signature)

    def __set_name__(self, owner: type, name: str) -> None:
        self.owners = (*self.owners, owner)

    def is_called_on_object(self, args: tuple[Any, ...], *, bound: bool) -> bool:
        """Whether the first argument is the object that a step of a class was called on, by `obj.step()` or without.

        That object is not what a call is recognised by: a flow and its steps share it, and it is the flow's input.
        Asked only of steps with `owners`.
        """
        if bound or self._is_made_in_class:
            return True
        return bool(args) and not self._is_global and any(own in type(args[0]).__mro__ for own in self.owners)

    @functools.cached_property
    def _is_made_in_class(self) -> bool:
        own = getattr(self.function, "__qualname__", "").rpartition(".")[0]
        return any(own == owner.__qualname__ for owner in self.owners)

    @functools.cached_property
    def _is_global(self) -> bool:
        """A module has it under its own name, so that a class which has it as well only borrows it."""
        module = sys.modules.get(getattr(self.function, "__module__", None) or "")
        return getattr(module, getattr(self.function, "__name__", ""), None) is self

    if not TYPE_CHECKING:  # type checkers know that there is no such thing

        @property
        def bind(self) -> NoReturn:
            raise AttributeError(
                f"step `{self.name}` cannot be bound: a step is called in a flow, and it is the flow that is "
                "scheduled, such as `schedule(my_flow.bind(...))`"
            )

    @functools.cached_property
    def decoder(self) -> Decoder:
        """Decodes results by the return annotation; found on first use, when all names are defined."""
        return decoder_for(hints_of(self.function).result)

    @overload
    def __get__(
        self: Step[Concatenate[S, Q], R], instance: None, owner: type[S]
    ) -> Step[Concatenate[S, Q], R]: ...
    @overload
    def __get__(self: Step[Concatenate[S, Q], R], instance: S, owner: type[S]) -> BoundStep[Q, R]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        return self if instance is None else BoundStep(self, instance)

    # `object`, not `Any`: with an `Any` in an argument mypy gives up on overloads, and `gather` of two steps is `Any`.
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, R]:
        """Ask for the result. Await it, or hand it to `gather`, `create_task` and the like."""
        frame = sys._getframe(1)  # noqa: SLF001
        place = (frame.f_code, frame.f_lasti)
        loop = asyncio._get_running_loop()  # noqa: SLF001
        # The usual call, without the detour: this line runs once for every step of every flow.
        if (
            not kwargs
            and self._positional_min <= len(args) <= self._positional_max
            and type(loop) is FlowLoop
        ):
            return StepCall(self, args, _NO_KWARGS, place, loop)
        return self.call(args, kwargs, place)

    def call(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], place: Place, *, bound: bool = False
    ) -> Coroutine[object, object, R]:
        """`__call__` with the place it was written at. `bound`: the first argument is the object it was called on."""
        if kwargs or not self._positional_min <= len(args) <= self._positional_max:
            self._check(args, kwargs)
        loop = asyncio._get_running_loop()  # noqa: SLF001
        if type(loop) is FlowLoop:
            return StepCall(self, args, kwargs, place, loop, bound=bound)
        inside = step_context.get()
        if inside is None:
            raise NotInFlow(
                f"step `{self.name}` was called outside a flow, where its result would not be recorded. Call it from "
                f"a flow, or run the plain function with `{self.name}.function(...)`."
            )
        return self._run_inside_step(inside, args, kwargs)

    async def _run_inside_step(self, inside: StepContext, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        if self.is_async:
            return await self.function(*args, **kwargs)  # type: ignore[no-any-return]
        return await inside.call_plain(self, args, kwargs)  # type: ignore[no-any-return]

    def _check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsMismatch(
                f"step `{self.name}{self._signature}` cannot be called with these arguments: {error}"
            ) from None

    def __repr__(self) -> str:
        return f"<step {self.name}>"


class BoundStep(Generic[P, R]):
    """A step of an object: `self.charge`."""

    __slots__ = ("instance", "step")

    def __init__(self, step: Step[Any, R], instance: Any) -> None:
        self.step = step
        self.instance = instance

    @property
    def name(self) -> str:
        """The step's name in the log."""
        return self.step.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, R]:
        """Ask for the result."""
        return self.step.call((self.instance, *args), kwargs, caller_place(), bound=True)

    def __repr__(self) -> str:
        return f"<step {self.name} of an object>"


@overload
def step(function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
@overload
def step(function: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: RetryPolicy = ...,
    timeout: float | None = None,
    at_most_once: bool = False,
    verify: Callable[..., Any] | None = None,
    process: bool = False,
    depends_on: str | Sequence[str] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> _StepDecorator: ...
def step(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: RetryPolicy = RetryPolicy.NONE,
    timeout: float | None = None,
    at_most_once: bool = False,
    verify: Callable[..., Any] | None = None,
    process: bool = False,
    depends_on: str | Sequence[str] | None = None,
    inputs: Mapping[str, str] | None = None,
) -> Any:
    """Make a function a step: its result is recorded once and never computed again.

    Works on `async def` and on plain `def`, which runs on a thread; with or without parentheses. The body must not
    change its arguments or the fields of `self` (`StepMutatedArguments`): a replay would not see that. Return values.

    name: the name in the log; default: the function's qualified name. Renaming a step changes the flow's code.
    retry: when and how often a failed attempt is repeated; default: never. Not with at_most_once: an attempt that
        raised may have had its effect. In the body, a further attempt finds the signals that it took and the children
        that returned; for timers it waits anew, and a child that failed it starts anew (not one whose id you chose).
    timeout: seconds that one attempt may take before it is cancelled and fails with `StepTimeout`. For a plain `def`
        they count from when it has a thread or process.
    at_most_once: never start the body twice; when a crash hits it, the flow sees `StepInterrupted`.
    verify: for at-most-once steps: called with the same arguments after an interruption; returns
        `Happened(result=...)` or `DID_NOT_HAPPEN` (then the body is run again). A plain `def` runs on a thread; both
        have the step's `timeout`. When it fails it is asked again, 5 times in some 8 s; then the flow sees
        `StepInterrupted`, from its last error.
    process: run a plain module-level `def` in a process pool; its arguments and result are pickled on the way.
        When the process dies the body is run again, in a process of its own and with the same idempotency key, up to
        3 times; with `at_most_once` the flow sees `StepInterrupted` instead.
    depends_on, inputs: for `dag(self)`: names of the steps that must end first, and which of their results become
        which argument (`{"parameter": "step"}`).
    """
    if isinstance(depends_on, str):
        depends_on = (depends_on,)
    if at_most_once and check_policy(retry).attempts_max > 1:
        raise UsageError(
            "at_most_once=True excludes retry=...: an attempt that raised may have had its effect, and a further try "
            "is a second start. Catch the error in the flow and decide there"
        )
    if verify is not None and not at_most_once:
        raise UsageError("verify=... goes with at_most_once=True")
    options = StepOptions(
        retry=check_policy(retry),
        timeout=check_timeout(timeout),
        at_most_once=at_most_once,
        verify=verify,
        process=process,
        depends_on=tuple(depends_on) if depends_on is not None else None,
        inputs=dict(inputs or {}),
    )
    if function is not None:
        return Step(function, name=name, options=options)
    return _StepDecorator(name, options)


class _StepDecorator:
    """`@step(...)` waiting for its function."""

    def __init__(self, name: str | None, options: StepOptions) -> None:
        self._name, self._options = name, options

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        return Step(function, name=self._name, options=self._options)


@overload
def run_step(
    function: Callable[[*Ts], Coroutine[Any, Any, R]], /, *args: *Ts, name: str
) -> Coroutine[object, object, R]: ...
@overload
def run_step(function: Callable[[*Ts], R], /, *args: *Ts, name: str) -> Coroutine[object, object, R]: ...
@overload
def run_step(
    function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[object, object, R]: ...
@overload
def run_step(
    function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[object, object, R]: ...
def run_step(  # type: ignore[misc]  # mypy does not see that `*args: Any` takes them all
    function: Any, /, *args: Any, name: Any = None, **kwargs: Any
) -> Coroutine[Any, Any, Any]:
    """Run any callable as a step, without decorating it, such as `json.loads`, `os.getcwd` or a class.

    name: the step's name in the log; default: the callable's own. A lambda needs one. The callable cannot be given
    an argument called `name` this way; decorate it instead. Type checkers take arguments
    beside `name` by position only.
    """
    return Step(function, name=name, options=_PLAIN).call(args, kwargs, caller_place())


_PLAIN: Final = StepOptions()
_NO_KWARGS: Final[dict[str, Any]] = {}
"""Of all calls without any, only ever read: a dict for each would be kept as long as its call, and the garbage
collector counts what is kept."""
