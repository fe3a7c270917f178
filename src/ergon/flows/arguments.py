"""A flow's arguments as its stored input, and back: a JSON object by parameter name.

The defaults of parameters that a call leaves out are stored with it, so that code with another default does not change
a flow that has started. What the call itself gave is kept beside it, as that is what a repeated call is compared by.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ergon.core.codec import MISSING, Hints, decoder_for, encode, recode
from ergon.core.codec.objects import split_object
from ergon.core.codec.shape import Anything, Field, Record
from ergon.errors import ArgumentsMismatch, DecodingError, EncodingError, UsageError

_Parameter = inspect.Parameter


def encode_arguments(
    name: str,
    signature: inspect.Signature,
    names: tuple[str, ...] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    hints: Callable[[], Hints],
    defaults: Callable[[], Mapping[str, str]],
) -> tuple[str, str]:
    """What the call gives, and the input to store, which has the defaults of the rest as well.

    `names` are the signature's `plain_names`, `defaults` its `default_texts`; messages ask for `hints`.
    Raises `ArgumentsMismatch`, `EncodingError`.
    """
    if names is not None and not kwargs and len(args) == len(names):
        given = encode(dict(zip(names, args, strict=True)), lambda: _shape(signature, hints))
        return given, given
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ArgumentsMismatch(
            f"flow `{name}{signature}` cannot be called with these arguments: {error}"
        ) from None
    given = encode(dict(bound.arguments), lambda: _shape(signature, hints))
    rest = [f"{encode(name)}:{text}" for name, text in defaults().items() if name not in bound.arguments]
    if not rest:
        return given, given
    return given, "{" + ",".join([*([given[1:-1]] if bound.arguments else []), *rest]) + "}"


def check_arguments(
    name: str,
    signature: inspect.Signature,
    hints: Callable[[], Hints],
    given: str,
    values: Mapping[str, object],
) -> None:
    """Raise `ArgumentsMismatch` for an argument that will not read back as its parameter is declared.

    `given` is what the call gives, encoded; `values` the same by name. An argument of the very class that is declared
    costs nothing, any other is read back.
    """
    try:
        known = hints()
    except UsageError:  # it is told when the flow is first read back
        return
    parts: Mapping[str, str] | None = None
    for parameter in signature.parameters.values():
        hint = known.params.get(parameter.name, MISSING)
        if hint is MISSING or parameter.name not in values or type(values[parameter.name]) is hint:
            continue
        if parts is None:
            parts = split_object(given)
        try:
            decoder_for(_annotation(parameter, known)).decode(parts[parameter.name])
        except UsageError:
            continue
        except DecodingError as error:
            place = f"{parameter.name}{error.path[1:]}"
            fault = str(error).partition("the stored value does not fit the declared type: ")[2]
            raise ArgumentsMismatch(
                f"flow `{name}{signature}`: argument `{place}` does not fit its type: {fault}"
            ) from None


def default_texts(signature: inspect.Signature, hints: Hints) -> dict[str, str]:
    """The defaults of the parameters as JSON.

    Without those that do not read back as declared, such as a sentinel or the None of `limit: int = None`: they
    are not stored, and a flow has them from its code.
    """
    texts: dict[str, str] = {}
    for parameter in signature.parameters.values():
        if parameter.default is not parameter.empty:
            with contextlib.suppress(EncodingError, UsageError):
                texts[parameter.name], _ = recode(
                    parameter.default, decoder_for(_annotation(parameter, hints))
                )
    return texts


def _shape(signature: inspect.Signature, hints: Callable[[], Hints]) -> Record:
    """The parameters as the fields of a record, so that a message about an argument can name it."""
    try:
        known = hints()
    except UsageError:  # it is told when the flow is first read back
        known = Hints({}, MISSING)
    fields: list[Field] = []
    for parameter in signature.parameters.values():
        try:
            shape = decoder_for(_annotation(parameter, known)).shape
        except UsageError:
            shape = Anything()
        fields.append(Field(parameter.name, parameter.name, shape, required=False))
    return Record(dict, "typed dict", tuple(fields))


def decode_arguments(
    name: str, signature: inspect.Signature, hints: Hints, text: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments to call with. Raises `DecodingError` when the stored input does not fit the signature."""
    parts = split_object(text)
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        part = parts.pop(parameter.name, None)
        if part is None:
            if parameter.default is parameter.empty and parameter.kind not in _VARIADIC:
                raise DecodingError(
                    f"flow `{name}`: the stored input has no `{parameter.name}`. Give the parameter a default, so "
                    "that flows started before it existed can run",
                    path=f"$.{parameter.name}",
                )
            if parameter.kind in (_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD) and parts:
                args.append(parameter.default)
            continue
        try:
            value = decoder_for(_annotation(parameter, hints)).decode(part)
        except DecodingError as error:
            path = f"$.{parameter.name}{error.path[1:]}"
            raise DecodingError(f"flow `{name}`, argument `{parameter.name}`: {error}", path=path) from None
        if parameter.kind is parameter.VAR_POSITIONAL:
            args.extend(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            kwargs.update(value)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[parameter.name] = value
        else:
            args.append(value)
    if parts:
        extra = ", ".join(sorted(parts))
        raise DecodingError(
            f"flow `{name}{signature}`: the stored input has parameters that the flow does not take: {extra}"
            f"{where_further_go(signature, parts)}"
        )
    return tuple(args), kwargs


def where_further_go(signature: inspect.Signature, unknown: Iterable[str]) -> str:
    """`; further keyword arguments go into "options": {"color": ...}`, for a flow that takes any; else empty."""
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            return f'; further keyword arguments go into "{parameter.name}": {{"{min(unknown)}": ...}}'
    return ""


def plain_names(signature: inspect.Signature) -> tuple[str, ...] | None:
    """The parameters' names when all of them can be given by position, else None."""
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    return tuple(signature.parameters) if kinds <= _BY_POSITION else None


def fits_arguments(name: str, signature: inspect.Signature, hints: Hints, stored: str, given: str) -> bool:
    """Whether a stored input holds what a call gives; sets, for one, may be written in any order.

    A parameter that the call leaves to its default fits any value: the default may have been another one then.
    """
    if stored == given:
        return True
    try:
        kept, asked = (_by_name(name, signature, hints, text) for text in (stored, given))
    except DecodingError:
        return False
    said = split_object(given)
    return all(
        kept[parameter.name] == asked[parameter.name]
        for parameter in signature.parameters.values()
        if parameter.name in said or parameter.kind in _VARIADIC
    )


def _by_name(name: str, signature: inspect.Signature, hints: Hints, text: str) -> dict[str, Any]:
    args, kwargs = decode_arguments(name, signature, hints, text)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


_BY_POSITION = frozenset({_Parameter.POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD})
_VARIADIC = (_Parameter.VAR_POSITIONAL, _Parameter.VAR_KEYWORD)


def _annotation(parameter: inspect.Parameter, hints: Hints) -> Any:
    hint = hints.params.get(parameter.name, MISSING)
    if hint is MISSING:
        return MISSING
    if parameter.kind is parameter.VAR_POSITIONAL:
        return list[hint]  # type: ignore[valid-type]
    if parameter.kind is parameter.VAR_KEYWORD:
        return dict[str, hint]  # type: ignore[valid-type]
    return hint
