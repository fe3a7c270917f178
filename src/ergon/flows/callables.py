"""What a function given to a decorator is: its name, its signature, and how it can be called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from ergon.errors import UsageError


def public_name(function: Callable[..., Any]) -> str:
    """The name a function is known by in the log: its qualified name without enclosing functions."""
    name: str = getattr(function, "__qualname__", "") or getattr(function, "__name__", "")
    name = name.rsplit("<locals>.", 1)[-1]
    if not name or "<" in name:
        raise UsageError(f"{function!r} has no name of its own; give it one with name=...")
    return name


def stand_for(made: object, function: Callable[..., Any]) -> None:
    """Give what a decorator makes the name, docstring and attributes of its function; call before it sets its own.

    An attribute that the decorator's class has itself is left out: it would take that one's place.
    """
    kept = {name: value for name, value in _attributes(function).items() if not hasattr(type(made), name)}
    vars(made).update(kept)
    functools.update_wrapper(made, function, updated=())  # type: ignore[arg-type]  # it takes any object


def _attributes(function: Callable[..., Any]) -> Mapping[str, Any]:
    return getattr(function, "__dict__", {})


def check_order(decorator: str, function: object) -> None:
    """Raise `UsageError` for what `@staticmethod` or `@classmethod` made: it has to stand above."""
    if isinstance(function, staticmethod | classmethod):
        kind, name = type(function).__name__, getattr(function, "__name__", "")
        raise UsageError(
            f"`{name}`: write `@{kind}` above `@{decorator}`, not below it: what `@{kind}` makes is no function"
        )


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it gives a coroutine: also of an object whose class defines `async def __call__`."""
    inner: Any = inspect.unwrap(function)
    if isinstance(inner, functools.partial):
        inner = inner.func
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(
        getattr(type(inner), "__call__", None)  # noqa: B004  # the method itself is looked at
    )


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """What it can be called with: anything, when it does not say, as some functions written in C do not."""
    try:
        return inspect.signature(function)
    except ValueError:
        return _ANYTHING


def _anything(*args: Any, **kwargs: Any) -> None:
    """Take whatever is given."""


_ANYTHING: Final = inspect.signature(_anything)


def check_process_step(function: Callable[..., Any], *, is_async: bool) -> None:
    """Raise `UsageError` for what another process could not run."""
    if is_async:
        raise UsageError(
            "process=True is for plain `def` functions; an `async def` step runs on the event loop"
        )
    if "<" in getattr(function, "__qualname__", "<"):
        raise UsageError(
            f"process=True needs a module-level function, which another process can import by name; {function!r} is not"
        )


def arity(signature: inspect.Signature) -> tuple[int, int]:
    """How many positional arguments fit, at most and at least; (-1, 0) sends every call through `bind`."""
    most = least = 0
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            most += 1
            least += parameter.default is parameter.empty
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = 1 << 30
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            return -1, 0
    return most, least
