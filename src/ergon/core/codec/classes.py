"""The fields of a class with their types resolved: strings evaluated, type variables replaced by what is meant."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterable
from typing import Any, TypeVar

from ergon.core.codec.walk import type_name
from ergon.errors import UsageError

Bindings = dict[Any, Any]


def class_hints(kind: type, args: tuple[Any, ...] = ()) -> dict[str, Any]:
    """The annotations of a class and its bases. `args` are those of a generic one, such as `(int,)` of `Page[int]`.

    Raises `UsageError` that names what cannot be resolved.
    """
    bound: dict[type, Bindings] = {}
    _bind(kind, args, bound)
    hints: dict[str, Any] = {}
    for each in reversed(kind.__mro__):
        if each.__module__ in ("builtins", "typing"):
            continue
        for name, annotation in _own_hints(each).items():
            hints[name] = substitute(annotation, bound.get(each, {}))
    return hints


def _own_hints(kind: type) -> dict[str, Any]:
    module = sys.modules.get(kind.__module__)
    try:
        own = inspect.get_annotations(kind)
        # A class, as only there ClassVar and Final may stand.
        holder = type("Holder", (), {"__annotations__": own, "__module__": kind.__module__})
        return typing.get_type_hints(
            holder, vars(module) if module else {}, _local_names(kind), include_extras=True
        )
    except (NameError, AttributeError) as error:
        raise UsageError(
            f"a field of `{type_name(kind)}` is annotated with `{error.name}`, which is unknown at run time. Import it "
            "outside `if TYPE_CHECKING:` or define it at module level, so that values can be read back as it"
        ) from None


def _local_names(kind: type) -> dict[str, Any]:
    return {**{param.__name__: param for param in getattr(kind, "__type_params__", ())}, **vars(kind)}


def _bind(kind: type, args: tuple[Any, ...], bound: dict[type, Bindings]) -> None:
    """Note what each class's type variables stand for, down to the bases."""
    if kind in bound or kind is object:
        return
    bound[kind] = bindings = dict(zip(getattr(kind, "__parameters__", ()), args, strict=False))
    for base in kind.__dict__.get("__orig_bases__", kind.__bases__):
        origin = typing.get_origin(base) or base
        if isinstance(origin, type) and origin is not typing.Generic:
            _bind(origin, tuple(substitute(arg, bindings) for arg in typing.get_args(base)), bound)


def substitute(annotation: Any, bindings: Bindings) -> Any:
    """Replace type variables in an annotation."""
    if isinstance(annotation, TypeVar):
        return bindings.get(annotation, annotation)
    params: Iterable[Any] = getattr(annotation, "__parameters__", ())
    if not bindings or isinstance(annotation, type) or not isinstance(params, tuple) or not params:
        return annotation
    return annotation[tuple(bindings.get(param, param) for param in params)]
