"""The annotations of a function as types, whether written as objects, as strings or under `from __future__`."""

from __future__ import annotations

import builtins
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ergon.core.codec.decode import MISSING, Missing
from ergon.errors import UsageError


class Hints(NamedTuple):
    """What a function's annotations say."""

    params: dict[str, Any]
    """Annotated parameters only; for `*args: X` and `**kwargs: X` the X."""
    result: Any
    """The declared result, `MISSING` when there is none. `-> None` is `NoneType`."""

    def of(self, param: str) -> Any:
        """The annotation of a parameter, or `MISSING`."""
        return self.params.get(param, MISSING)


def hints_of(function: Callable[..., Any], local_names: Mapping[str, Any] | None = None) -> Hints:
    """Resolve a function's annotations.

    Call it on first use rather than at decoration: a class defined further down the module is known by then.
    `local_names` adds names that only the place of decoration sees, such as classes local to a test.

    A class gives objects of itself. What is not written in Python, such as `len`, says nothing.
    Raises `UsageError` that says which name is unknown and where it is written.
    """
    inner = _plain_function(function)
    if not isinstance(inner, types.FunctionType):
        return Hints({}, inner if isinstance(inner, type) else MISSING)
    try:
        written = dict(inner.__annotations__)
    except NameError as error:  # Python 3.14 evaluates them here
        raise _unknown(inner, "an annotation", "", error) from None
    names = {**(local_names or {}), **_closed_over(inner)}
    resolved = {name: _resolve(inner, name, value, names) for name, value in written.items()}
    result = resolved.pop("return", MISSING)
    if result is inspect.Signature.empty:
        result = MISSING
    return Hints(resolved, result)


def _plain_function(function: Any) -> Any:
    """The function whose annotations count: inside wrappers, partials, methods and callable objects.

    A class is returned as it is, and so is what is not written in Python.
    """
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif isinstance(function, types.MethodType):
            function = function.__func__
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif isinstance(function, types.FunctionType):
            return function
        elif not isinstance(function, type) and isinstance(
            call := vars(type(function)).get("__call__"), types.FunctionType
        ):
            function = call
        else:
            return function


def _closed_over(function: types.FunctionType) -> dict[str, Any]:
    names: dict[str, Any] = {param.__name__: param for param in getattr(function, "__type_params__", ())}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return names


def _resolve(function: types.FunctionType, param: str, annotation: Any, names: Mapping[str, Any]) -> Any:
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, function.__globals__, dict(names), include_extras=True)["it"]
    except (NameError, AttributeError) as error:
        place = "the result" if param == "return" else f"parameter `{param}`"
        raise _unknown(function, place, annotation, error) from None
    except SyntaxError:
        raise UsageError(
            f"{_title(function)}: the annotation {annotation!r} of `{param}` is not an expression"
        ) from None


def _unknown(
    function: types.FunctionType, place: str, annotation: object, error: NameError | AttributeError
) -> UsageError:
    name = error.name or "?"
    written = f" ({annotation!r})" if annotation else ""
    advice = "Import it outside `if TYPE_CHECKING:` or define it at module level, so that values can be read back as it"
    if hasattr(builtins, name):  # an attribute error such as `int.x`
        advice = "Correct the annotation"
    return UsageError(
        f"{_title(function)}: the annotation of {place}{written} names `{name}`, which is unknown at run time. {advice}"
    )


def _title(function: types.FunctionType) -> str:
    return f"`{function.__module__}.{function.__qualname__}`"


__all__ = ["MISSING", "Hints", "Missing", "hints_of"]
