"""JSON text to values of a declared type, and the round trip that makes live equal replay."""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from ergon.core.codec.convert import UNKNOWN_FIELD, Misfit, check_convertible, convert
from ergon.core.codec.depth import CHARS_SHALLOW, nested_too_deeply
from ergon.core.codec.encode import CHARS_UNCHECKED, check_written, explain, write
from ergon.core.codec.guard import Guard, explain_misfit, guard_of
from ergon.core.codec.hooks import Refused, from_json
from ergon.core.codec.parse import parse
from ergon.core.codec.paths import placed
from ergon.core.codec.plain import is_plain
from ergon.core.codec.shape import Anything, Shape
from ergon.core.codec.walk import name_of
from ergon.errors import DecodingError, EncodingError


class Missing(enum.Enum):
    """The type of `MISSING`: no annotation was written."""

    MISSING = enum.auto()


MISSING: Final = Missing.MISSING
"""In place of an annotation: none was written. Values are then plain JSON only."""


class Decoder:
    """Reads JSON text as one declared type. Build it once per step, flow or signal; `decoder_for` keeps them.

    Raises `UsageError` when the type cannot be read back from JSON without doubt.
    """

    __slots__ = ("annotation", "fits", "read", "shape")

    def __init__(self, annotation: object) -> None:
        self.annotation = annotation
        self.read, self.fits, self.shape = _reader(annotation)

    def decode(self, text: str | bytes) -> Any:
        """Return the value. Raises `DecodingError` when the text is not JSON or does not fit the type."""
        try:
            if len(text) >= CHARS_SHALLOW and nested_too_deeply(text):
                raise RecursionError
            return self.read(text)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # also what a dataclass's __post_init__ raises
            path, fault = fault_of(error)
            raise DecodingError(
                placed(path, f"the stored value does not fit the declared type: {fault}"), path=path
            ) from None

    def __repr__(self) -> str:
        return f"Decoder({self.annotation!r})"


def recode(value: object, decoder: Decoder) -> tuple[str, Any]:
    """Encode a value, then read it back as the declared type: what a later replay will read.

    Returns the text and the decoded copy. Raises `EncodingError` when the value has no JSON form, does not fit the
    declared type, or (without one) would not read back as itself.
    """
    fits = decoder.fits
    if fits is not None:
        try:
            survives = fits(value)
        except Exception:  # noqa: BLE001  # too deep, or a property of the user's raised: encoding it will say where
            survives = False
        if not survives and (misfit := explain_misfit(decoder.shape, value)) is not None:
            raise misfit
    # As in `encode`, but the bytes are kept: msgspec reads them faster than text.
    try:
        raw = write(value)
        text = raw.decode()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # as in `encode`
        raise explain(value, error, decoder.shape) from None
    if ("null" in text and fits is not is_plain) or len(text) > CHARS_UNCHECKED:
        check_written(value, text, lambda: decoder.shape)
    if len(text) >= CHARS_SHALLOW and nested_too_deeply(raw):
        raise explain(value, RecursionError(), decoder.shape)
    try:
        return text, decoder.read(raw)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # as in `decode`
        path, fault = fault_of(error)
        raise EncodingError(
            placed(path, f"the value does not fit the declared type: {fault}"), path=path
        ) from None


def fault_of(error: Exception) -> tuple[str, str]:
    """The path and the fault of a failed decode, without any part of the value."""
    if isinstance(error, Misfit):
        return error.path, error.fault
    cause = error.__cause__
    message = str(error) if isinstance(error, msgspec.MsgspecError) else ""
    fault, _, place = message.partition(" - at `")
    if place.startswith("key` in `"):
        path = place[len("key` in `") :].rstrip("`")
        fault = f"a key: {fault}"
    else:
        path = place.rstrip("`") or "$"
    if isinstance(error, Refused) or isinstance(cause, Refused):
        return path, str(cause or error)
    if isinstance(error, RecursionError):
        return path, "nested too deeply"
    if cause is not None or not message:
        return path, f"refused by its own check ({name_of(cause or error)})"
    if fault.startswith("Invalid enum value"):  # the rest quotes the value
        return path, "not one of the values of its Enum or Literal"
    if fault.startswith(UNKNOWN_FIELD):  # the rest quotes its name
        return path, "an unknown field"
    if fault.startswith("Invalid value"):
        return path, "an unknown tag"
    return path, fault[:1].lower() + fault[1:]


Read = Callable[[str | bytes], Any]


def _reader(annotation: Any) -> tuple[Read, Guard | None, Shape]:
    """How to read an annotation, how to see that a value survives the trip, and its shape to explain why not."""
    if annotation is MISSING:
        annotation = Any
    shape = parse(annotation, {})
    if isinstance(shape, Anything):
        return _read_json, is_plain, shape
    try:
        read: Read = msgspec.json.Decoder(annotation, dec_hook=from_json).decode
    except (
        TypeError,
        NameError,
        NotImplementedError,
    ):  # such as a union of classes, or an Enum of odd values
        check_convertible(shape)
        read = _read_by_shape(shape)
    return read, guard_of(shape), shape


def _read_by_shape(shape: Shape) -> Read:
    return lambda text: convert(shape, _read_json(text))


_read_json: Final = msgspec.json.Decoder().decode


@lru_cache(maxsize=4096)
def _cached(annotation: object) -> Decoder:
    return Decoder(annotation)


def decoder_for(annotation: object) -> Decoder:
    """The `Decoder` for an annotation, built once for each."""
    try:
        return _cached(annotation)
    except TypeError:  # unhashable, such as Annotated[int, []]
        return Decoder(annotation)
