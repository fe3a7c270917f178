"""JSON text to values of a declared type, and the round trip that makes live equal replay."""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import msgspec

from ergon.core.codec.encode import encode_bytes
from ergon.core.codec.hooks import Refused, from_json
from ergon.core.codec.plain import explain_plain, is_plain
from ergon.core.codec.walk import name_of
from ergon.errors import DecodingError, EncodingError, UsageError


class Missing(enum.Enum):
    """The type of `MISSING`: no annotation was written."""

    MISSING = enum.auto()


MISSING: Final = Missing.MISSING
"""In place of an annotation: none was written. Values are then plain JSON only."""


class Decoder:
    """Reads JSON text as one declared type. Build it once per step, flow or signal; `decoder_for` keeps them.

    Raises `UsageError` when the type cannot be read back from JSON without doubt.
    """

    __slots__ = ("_read", "annotation", "fits")

    def __init__(self, annotation: object) -> None:
        self.annotation = annotation
        self._read, self.fits = _reader(annotation)

    def decode(self, text: str | bytes) -> Any:
        """Return the value. Raises `DecodingError` when the text is not JSON or does not fit the type."""
        try:
            return self._read(text)
        except MemoryError:
            raise
        except Exception as error:  # also what a dataclass's __post_init__ raises
            path, fault = fault_of(error)
            raise DecodingError(
                f"{path}: the stored value does not fit the declared type: {fault}", path=path
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
            plain = fits(value)
        except RecursionError:
            plain = False
        if not plain:
            raise explain_plain(value)
    raw = encode_bytes(value)
    try:
        return raw.decode(), decoder._read(raw)  # noqa: SLF001  # one duty in two entries
    except MemoryError:
        raise
    except Exception as error:  # as in `decode`
        path, fault = fault_of(error)
        raise EncodingError(f"{path}: the value does not fit the declared type: {fault}", path=path) from None


def fault_of(error: Exception) -> tuple[str, str]:
    """The path and the fault of a failed decode, without any part of the value."""
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
    if fault.startswith("Invalid value"):
        return path, "an unknown tag"
    return path, fault[:1].lower() + fault[1:]


def _reader(annotation: object) -> tuple[Callable[[str | bytes], Any], Callable[[Any], bool] | None]:
    if annotation is MISSING or annotation is Any or annotation is object:
        return msgspec.json.Decoder().decode, is_plain
    try:
        return msgspec.json.Decoder(annotation, dec_hook=from_json).decode, None  # type: ignore[call-overload]
    except (TypeError, NameError) as error:
        raise UsageError(f"{annotation!r} cannot be read back from JSON: {error}") from None


@lru_cache(maxsize=4096)
def _cached(annotation: object) -> Decoder:
    return Decoder(annotation)


def decoder_for(annotation: object) -> Decoder:
    """The `Decoder` for an annotation, built once for each."""
    try:
        return _cached(annotation)
    except TypeError:  # unhashable, such as Annotated[int, []]
        return Decoder(annotation)
