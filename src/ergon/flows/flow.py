"""`@flow`: a durable function, or the durable method of a `@flow_type` class.

A flow is not called like a function. `flow.bind(...)` gives a `FlowCall`, which a `Scheduler` starts; inside
another flow, calling it starts a child and waits for it.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from msgspec import Struct

from ergon.core.checks import check_priority, check_timeout
from ergon.core.codec import Decoder, Hints, decoder_for, hints_of
from ergon.core.names import check_name, check_tags
from ergon.core.retry import RetryPolicy, check_policy
from ergon.errors import NotInFlow, UsageError
from ergon.flows.arguments import (
    check_arguments,
    decode_arguments,
    default_texts,
    encode_arguments,
    fits_arguments,
    plain_names,
)
from ergon.flows.callables import check_order, public_name, stand_for
from ergon.flows.context import caller_place, current_machine, step_context
from ergon.flows.plain_arguments import PlainArguments

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


class FlowOptions(Struct, frozen=True, kw_only=True):
    """How a flow is run when the one who starts it says nothing else."""

    queue: str = "default"
    retry: RetryPolicy = RetryPolicy.NONE
    timeout: float | None = None
    """Seconds after its first start when it is cancelled; None: never."""
    priority: int = 0
    tags: tuple[str, ...] = ()
    """Only workers that have all of these take it."""


class Flow(Generic[P, R]):
    """A durable function. Made by `@flow`."""

    def __init__(self, function: Callable[..., Any], *, name: str | None, options: FlowOptions) -> None:
        check_order("flow", function)
        if not callable(function):
            raise UsageError(f"@flow needs an `async def` function, not {function!r}")
        if inspect.isasyncgenfunction(function):
            raise UsageError(
                f"@flow needs an `async def` function that returns; `{public_name(function)}` has a `yield` and is "
                "a generator. Return a list, or start a child flow for each part"
            )
        if not inspect.iscoroutinefunction(function):
            raise UsageError(
                f"@flow needs an `async def` function; `{public_name(function)}` is a plain `def`"
            )
        stand_for(self, function)
        self.function = function
        self.options = options
        self.owner: type | None = None
        self.signature = inspect.signature(function)
        self.plain_names = plain_names(self.signature)
        self._given_name = name
        self._name = check_name("flow name", name if name is not None else public_name(function))
        self._hints: Hints | None = None
        self._defaults: dict[str, str] | None = None
        self._plain: PlainArguments | None = None
        self._result_decoder: Decoder | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner = owner
        if self._given_name is None:
            self._name = check_name("flow name", f"{public_name(owner)}.{name}")

    @property
    def name(self) -> str:
        """The flow's name in the log: `function` or `Class.method`, unless given."""
        return self._name

    @property
    def result_decoder(self) -> Decoder:
        """Decodes results by the return annotation."""
        if self._result_decoder is None:
            self._result_decoder = decoder_for(self.all_hints().result)
        return self._result_decoder

    def all_hints(self) -> Hints:
        """What the annotations of its function say."""
        if self._hints is None:
            hints = hints_of(self.function)
            if self.owner is not None:
                first = next(iter(self.signature.parameters))
                hints = Hints(params={**hints.params, first: self.owner}, result=hints.result)
            self._hints = hints
        return self._hints

    @overload
    def __get__(
        self: Flow[Concatenate[S, Q], R], instance: None, owner: type[S]
    ) -> Flow[Concatenate[S, Q], R]: ...
    @overload
    def __get__(self: Flow[Concatenate[S, Q], R], instance: S, owner: type[S]) -> BoundFlow[Q, R]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        return self if instance is None else BoundFlow(self, instance)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> FlowCall[R]:
        """The flow with its arguments, ready to be scheduled. Raises `ArgumentsMismatch`, `EncodingError`."""
        return FlowCall(self, args, kwargs)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, R]:
        """Inside a flow: start a child flow and wait for its result. Elsewhere: `NotInFlow`."""
        return self.call(args, kwargs)

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[object, object, R]:
        """`__call__`, two frames below the code that asked."""
        if current_machine() is None and step_context.get() is None:
            raise NotInFlow(
                f"flow `{self.name}` was called directly. Start it with "
                f"`await Scheduler(log).schedule({self.name}.bind(...))`, or run it here and now with "
                f"`await Executor({self.name}.bind(...), log, flow_id).run()`."
            )
        from ergon.flows.children import start_child

        return start_child(FlowCall(self, args, kwargs), place=caller_place(3)).result()

    def decode_input(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments kept in a stored input. Raises `DecodingError`."""
        plain = self.plain_arguments
        if plain is not None and (args := plain.read(text)) is not None:
            return args, {}
        return decode_arguments(self.name, self.signature, self.all_hints(), text)

    @property
    def plain_arguments(self) -> PlainArguments | None:
        """The quick way for the arguments of a usual call; None: there is none."""
        if self._plain is None and self.plain_names is not None:
            with contextlib.suppress(UsageError):  # it is told when the flow is first read back
                self._plain = PlainArguments(self.plain_names, self.all_hints())
        return self._plain

    def default_texts(self) -> dict[str, str]:
        """The defaults of its parameters as JSON: those that are stored with a call that leaves them out."""
        if self._defaults is None:
            try:
                self._defaults = default_texts(self.signature, self.all_hints())
            except UsageError:  # it is told when the flow's input is first read back
                return {}
        return self._defaults

    def __repr__(self) -> str:
        return f"<flow {self.name}>"


class BoundFlow(Generic[P, R]):
    """A flow of an object: `order.process`."""

    __slots__ = ("flow", "instance")

    def __init__(self, flow: Flow[Any, R], instance: Any) -> None:
        self.flow = flow
        self.instance = instance

    @property
    def name(self) -> str:
        """The flow's name in the log."""
        return self.flow.name

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> FlowCall[R]:
        """The flow with its object and arguments, ready to be scheduled."""
        return FlowCall(self.flow, (self.instance, *args), kwargs)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[object, object, R]:
        """Inside a flow: start a child flow and wait for its result."""
        return self.flow.call((self.instance, *args), kwargs)

    def __repr__(self) -> str:
        return f"<flow {self.name} of an object>"


class FlowCall(Generic[R]):
    """A flow and its arguments. What schedulers and executors take."""

    __slots__ = ("args", "flow", "given", "input", "kwargs")

    def __init__(self, flow: Flow[Any, R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.flow = flow
        self.args = args
        self.kwargs = kwargs
        plain = flow.plain_arguments
        if not kwargs and plain is not None and (text := plain.write(args)) is not None:
            self.given = self.input = text
            return
        self.given, self.input = encode_arguments(
            flow.name,
            flow.signature,
            flow.plain_names,
            args,
            kwargs,
            hints=flow.all_hints,
            defaults=flow.default_texts,
        )
        names = flow.plain_names
        if names is not None and not kwargs:
            values: Mapping[str, object] = dict(zip(names, args, strict=False))
        else:
            values = flow.signature.bind(*args, **kwargs).arguments
        if values:
            check_arguments(flow.name, flow.signature, flow.all_hints, self.given, values)

    def named(self) -> dict[str, Any]:
        """The arguments that the call gives, by parameter."""
        names = self.flow.plain_names
        if names is not None and not self.kwargs and len(names) == len(self.args):
            return dict(zip(names, self.args, strict=True))
        return dict(self.flow.signature.bind(*self.args, **self.kwargs).arguments)

    def fits(self, stored: str) -> bool:
        """Whether a flow that was started with the input `stored` is the one that this call asks for."""
        flow = self.flow
        return stored == self.input or fits_arguments(
            flow.name, flow.signature, flow.all_hints(), stored, self.given
        )

    def __repr__(self) -> str:
        return f"<{self.flow.name} bound to its arguments>"


@overload
def flow(function: Callable[P, Coroutine[Any, Any, R]], /) -> Flow[P, R]: ...
@overload
def flow(
    *,
    name: str | None = None,
    queue: str = "default",
    retry: RetryPolicy = ...,
    timeout: float | None = None,
    priority: int = 0,
    tags: Sequence[str] = (),
) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Flow[P, R]]: ...
def flow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    queue: str = "default",
    retry: RetryPolicy = RetryPolicy.NONE,
    timeout: float | None = None,
    priority: int = 0,
    tags: Sequence[str] = (),
) -> Any:
    """Make an `async def` function or method durable; with or without parentheses.

    Arguments are stored in the log as JSON, in clear, and with them the defaults of the parameters that a call leaves
    out: `ergon show` prints both. So a password or token is no argument of a flow, and no default either, not even one
    read from the environment (`token: str = os.environ["TOKEN"]`): let the step that needs it read it.

    name: the name in the log; default: the function's qualified name.
    queue: where it is put when the scheduler names no other.
    retry: when and how often the whole flow is tried again after it raised; what it completed is kept, as
        `FlowHandle.retry` tells. Default: never.
    timeout: seconds after its first start when it is cancelled, even when a worker crashed meanwhile.
    priority: higher is claimed first. Default 0.
    tags: what a worker must have to take it, such as `("gpu",)`: all of them, see `Worker(tags=...)`. Default: none, so
    that every worker with the code may. Its steps run where it runs; put a step that needs another kind of worker into
    a child flow with tags of its own.
    """
    options = FlowOptions(
        queue=check_name("queue", queue),
        retry=check_policy(retry),
        timeout=check_timeout(timeout),
        priority=check_priority(priority),
        tags=check_tags("flow tag", tags),
    )
    if function is not None:
        return Flow(function, name=name, options=options)
    return lambda function: Flow(function, name=name, options=options)
